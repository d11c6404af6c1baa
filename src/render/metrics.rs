//! Counters, and their rendering in Prometheus text format.
//!
//! Does not know: when an event counts (`core/table/effects.rs`), or which refusals do (`fuse`).

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

/// The counter that `claimfs doctor` checks.
pub(crate) const STATUS_OVERFLOWS: &str = "claimfs_status_overflows_total";

/// Counters since the server began.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
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
    pub(crate) fn count(&self, count: Count) {
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

    /// Counts a request that was refused with this errno.
    pub(crate) fn refused(&self, errno: &'static str) {
        *self
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(errno)
            .or_default() += 1;
    }

    /// Counts a request and its duration.
    pub(crate) fn served(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = BOUNDS.iter().position(|bound| micros <= *bound) {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
        self.nanoseconds
            .fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.requests.fetch_add(1, Relaxed);
    }

    /// The content of the file `metrics`. `source` names where process endings are read;
    /// `overflows` counts how often there were too many of them to read.
    pub(crate) fn render(
        &self,
        leases: usize,
        sessions: usize,
        source: &str,
        overflows: u64,
    ) -> String {
        let mut out = String::new();
        self.render_counters(&mut out);
        let gauges = [
            ("claimfs_leases", "Live leases.", leases),
            ("claimfs_sessions", "Live sessions.", sessions),
        ];
        for (name, help, value) in gauges {
            head(&mut out, name, "gauge", help);
            line(&mut out, name, "", &value.to_string());
        }
        let help = "Times that more processes ended than could be read of: those count as exited.";
        head(&mut out, STATUS_OVERFLOWS, "counter", help);
        line(&mut out, STATUS_OVERFLOWS, "", &overflows.to_string());
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

    fn render_counters(&self, out: &mut String) {
        let counters = [
            ("claimfs_grants_total", "Names granted.", &self.grants),
            (
                "claimfs_releases_total",
                "Names released by their holders.",
                &self.releases,
            ),
            (
                "claimfs_reaps_total",
                "Names taken from dead holders.",
                &self.reaps,
            ),
            (
                "claimfs_breaks_total",
                "Names taken from living holders.",
                &self.breaks,
            ),
            (
                "claimfs_expiries_total",
                "Names taken because their deadline had passed.",
                &self.expiries,
            ),
            (
                "claimfs_handovers_total",
                "Names handed to another session.",
                &self.handovers,
            ),
        ];
        for (name, help, counter) in counters {
            head(out, name, "counter", help);
            line(out, name, "", &counter.load(Relaxed).to_string());
        }
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
        // A request that is counted between two loads must not make a bucket exceed the total.
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
