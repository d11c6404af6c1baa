//! Counters, and their rendering in Prometheus text format.
//!
//! Deliberately ignorant of: what the numbers mean. They are told, and read out.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::core::table::Count;

/// The upper bounds of the latency buckets, in microseconds.
const BOUNDS: [u64; 12] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 100_000, 1_000_000,
];

/// The counter that `claimfs doctor` looks at.
pub const STATUS_OVERFLOWS: &str = "claimfs_status_overflows_total";

/// What has been counted since the mount began.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Names granted.
    pub grants: AtomicU64,
    /// Names released by their holders.
    pub releases: AtomicU64,
    /// Names taken from dead holders.
    pub reaps: AtomicU64,
    /// Names taken from living holders.
    pub breaks: AtomicU64,
    /// Names taken because their deadline had passed.
    pub expiries: AtomicU64,
    /// Names handed to another session.
    pub handovers: AtomicU64,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    buckets: [AtomicU64; BOUNDS.len()],
    requests: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Metrics {
    /// Counts an event.
    pub fn count(&self, count: Count) {
        let counter = match count {
            Count::Grant => &self.grants,
            Count::Release => &self.releases,
            Count::Reap => &self.reaps,
            Count::Expiry => &self.expiries,
            Count::Handover => &self.handovers,
            Count::Break => &self.breaks,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// A request was refused with this errno.
    pub fn refused(&self, errno: &'static str) {
        *self
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(errno)
            .or_default() += 1;
    }

    /// A request took this long.
    pub fn served(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = BOUNDS.iter().position(|bound| micros <= *bound) {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
        self.nanoseconds
            .fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.requests.fetch_add(1, Relaxed);
    }

    /// The text of the file `metrics`. The two gauges are handed in, and so is where it is said how
    /// processes ended, and how often that was more than could be read.
    pub fn render(&self, leases: usize, sessions: usize, source: &str, overflows: u64) -> String {
        let mut out = String::new();
        let simple = [
            (
                "claimfs_grants_total",
                "counter",
                "Names granted.",
                self.grants.load(Relaxed),
            ),
            (
                "claimfs_releases_total",
                "counter",
                "Names released by their holders.",
                self.releases.load(Relaxed),
            ),
            (
                "claimfs_reaps_total",
                "counter",
                "Names taken from dead holders.",
                self.reaps.load(Relaxed),
            ),
            (
                "claimfs_breaks_total",
                "counter",
                "Names taken from living holders.",
                self.breaks.load(Relaxed),
            ),
            (
                "claimfs_expiries_total",
                "counter",
                "Names taken because their deadline had passed.",
                self.expiries.load(Relaxed),
            ),
            (
                "claimfs_handovers_total",
                "counter",
                "Names handed to another session.",
                self.handovers.load(Relaxed),
            ),
            ("claimfs_leases", "gauge", "Live leases.", leases as u64),
            (
                "claimfs_sessions",
                "gauge",
                "Live sessions.",
                sessions as u64,
            ),
        ];
        let overflows = (
            STATUS_OVERFLOWS,
            "counter",
            "Times that more processes ended than could be read of: those count as exited.",
            overflows,
        );
        for (name, kind, help, value) in simple.into_iter().chain([overflows]) {
            head(&mut out, name, kind, help);
            line(&mut out, name, "", &value.to_string());
        }
        let name = "claimfs_refusals_total";
        let help = "Requests refused, by errno. The kernel itself answers EEXIST to O_EXCL on a name that it has looked up.";
        head(&mut out, name, "counter", help);
        for (errno, count) in self
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            line(
                &mut out,
                name,
                &format!("{{errno=\"{errno}\"}}"),
                &count.to_string(),
            );
        }
        let name = "claimfs_status_source";
        let help = "Where it is said how processes ended: pidfd, proc connector or none.";
        head(&mut out, name, "gauge", help);
        line(&mut out, name, &format!("{{source=\"{source}\"}}"), "1");
        self.render_latency(&mut out);
        out
    }

    fn render_latency(&self, out: &mut String) {
        let name = "claimfs_request_duration_seconds";
        head(
            out,
            name,
            "histogram",
            "Time spent on a request inside claimfs, in seconds.",
        );
        let mut below = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            below += bucket.load(Relaxed);
            let bound = Duration::from_micros(*bound).as_secs_f64();
            line(
                out,
                &format!("{name}_bucket"),
                &format!("{{le=\"{bound}\"}}"),
                &below.to_string(),
            );
        }
        // Whoever is counted between two loads may not make a bucket larger than the sum of all.
        let count = self.requests.load(Relaxed).max(below);
        let sum = Duration::from_nanos(self.nanoseconds.load(Relaxed)).as_secs_f64();
        line(
            out,
            &format!("{name}_bucket"),
            "{le=\"+Inf\"}",
            &count.to_string(),
        );
        line(out, &format!("{name}_sum"), "", &sum.to_string());
        line(out, &format!("{name}_count"), "", &count.to_string());
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: &str) {
    let _ = writeln!(out, "{name}{labels} {value}");
}
