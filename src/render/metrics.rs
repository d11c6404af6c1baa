//! Counters, and their rendering in Prometheus text format.
//!
//! Does not know: when an event counts (`core/table/effects.rs`), or which refusals do (`fuse`).

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use crate::core::table::Count;

/// The upper bounds of the latency buckets, in microseconds.
const BOUNDS: [u64; 14] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000,
];

/// How long something took, in a histogram.
#[derive(Debug, Default)]
struct Durations {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    nanoseconds: AtomicU64,
    longest: AtomicU64,
}

/// The counter that `claimfs doctor` checks.
pub(crate) const STATUS_OVERFLOWS: &str = "claimfs_status_overflows_total";

/// The history of a mount when a server of it begins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Began {
    /// The number of servers of this mount before this one.
    pub restarts: u64,
    /// When it was mounted, in seconds since 1970. `None` below a supervisor that does not say.
    pub mounted_at: Option<u64>,
}

/// The present state, as numbers.
#[derive(Debug)]
pub(crate) struct Gauges {
    /// Live leases.
    pub leases: usize,
    /// The largest number of leases.
    pub leases_max: usize,
    /// Live sessions.
    pub sessions: usize,
    /// Waiters in queues.
    pub waiters: usize,
    /// When the first of them joined its queue.
    pub waits_since: Option<SystemTime>,
    /// The length of the journal.
    pub journal_bytes: u64,
    /// How often too many processes ended for their endings to be read.
    pub status_overflows: u64,
    /// Where process endings are read.
    pub status_source: &'static str,
}

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
    /// All requests, and those that others wait behind.
    requests: Durations,
    answers: Durations,
    began: OnceLock<Began>,
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

    /// Counts a request and the time from its reading to its answer. Others wait behind it, unless
    /// it `is_long` and was handed to a worker.
    pub(crate) fn served(&self, took: Duration, is_long: bool) {
        self.requests.count(took);
        if !is_long {
            self.answers.count(took);
        }
    }

    /// Notes how the server began, once.
    pub(crate) fn began(&self, began: Began) {
        _ = self.began.set(began);
    }

    /// The content of the file `metrics`, at this time.
    pub(crate) fn render(&self, gauges: &Gauges, now: SystemTime) -> String {
        let mut out = String::new();
        self.render_counters(&mut out);
        render_gauges(&mut out, gauges, now);
        self.render_server(&mut out);
        let help = "Times that more processes ended than could be read of: those count as exited.";
        head(&mut out, STATUS_OVERFLOWS, "counter", help);
        line(&mut out, STATUS_OVERFLOWS, "", gauges.status_overflows);
        let name = "claimfs_refusals_total";
        let help = "Requests refused, by errno. The kernel itself answers EEXIST to O_EXCL on a name that it has looked up.";
        head(&mut out, name, "counter", help);
        for (errno, count) in self
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            line(&mut out, name, &format!("{{errno=\"{errno}\"}}"), count);
        }
        let name = "claimfs_status_source";
        let help = "Where it is said how processes ended: pidfd, proc connector or none.";
        head(&mut out, name, "gauge", help);
        let source = gauges.status_source;
        line(&mut out, name, &format!("{{source=\"{source}\"}}"), 1);
        self.render_latency(&mut out);
        out
    }

    /// The version, and since when and by how many servers the mount is served.
    fn render_server(&self, out: &mut String) {
        let name = "claimfs_build_info";
        head(out, name, "gauge", "The version of the server. Always 1.");
        let version = env!("CARGO_PKG_VERSION");
        line(out, name, &format!("{{version=\"{version}\"}}"), 1);
        let began = self.began.get().copied().unwrap_or_default();
        if let Some(mounted_at) = began.mounted_at {
            let name = "claimfs_start_time_seconds";
            let help = "When this was mounted, in seconds since 1970.";
            head(out, name, "gauge", help);
            line(out, name, "", mounted_at);
        }
        let name = "claimfs_server_restarts_total";
        let help = "Servers of this mount that took over from one before, after its end or for an upgrade.";
        head(out, name, "counter", help);
        line(out, name, "", began.restarts);
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
            line(out, name, "", counter.load(Relaxed));
        }
    }

    fn render_latency(&self, out: &mut String) {
        let help = "Time from reading a request to writing its answer, in seconds.";
        let name = "claimfs_request_duration_seconds";
        self.requests.render(out, name, help);
        let help = "The same of requests that others wait behind: all but what workers carry out.";
        self.answers
            .render(out, "claimfs_answer_duration_seconds", help);
        let name = "claimfs_longest_answer_seconds";
        let help = "The longest of these since the server began, in seconds.";
        head(out, name, "gauge", help);
        let longest = Duration::from_nanos(self.answers.longest.load(Relaxed));
        line(out, name, "", longest.as_secs_f64());
    }
}

impl Durations {
    fn count(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = BOUNDS.iter().position(|bound| micros <= *bound) {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
        if nanos > self.longest.load(Relaxed) {
            self.longest.fetch_max(nanos, Relaxed);
        }
        self.nanoseconds.fetch_add(nanos, Relaxed);
        self.count.fetch_add(1, Relaxed);
    }

    fn render(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, "histogram", help);
        let mut below = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            below += bucket.load(Relaxed);
            let bound = Duration::from_micros(*bound).as_secs_f64();
            let label = format!("{{le=\"{bound}\"}}");
            line(out, &format!("{name}_bucket"), &label, below);
        }
        // A request that is counted between two loads must not make a bucket exceed the total.
        let count = self.count.load(Relaxed).max(below);
        let sum = Duration::from_nanos(self.nanoseconds.load(Relaxed)).as_secs_f64();
        line(out, &format!("{name}_bucket"), "{le=\"+Inf\"}", count);
        line(out, &format!("{name}_sum"), "", sum);
        line(out, &format!("{name}_count"), "", count);
    }
}

fn render_gauges(out: &mut String, gauges: &Gauges, now: SystemTime) {
    let waits = gauges.waits_since.map(|since| now.duration_since(since));
    // A clock that was set back makes no wait negative.
    let waits = waits.and_then(Result::ok).unwrap_or_default();
    let count = |count: usize| count.to_string();
    for (name, help, value) in [
        ("claimfs_leases", "Live leases.", count(gauges.leases)),
        (
            "claimfs_leases_max",
            "The largest number of leases (--max-leases).",
            count(gauges.leases_max),
        ),
        ("claimfs_sessions", "Live sessions.", count(gauges.sessions)),
        (
            "claimfs_waiters",
            "Processes that wait in queues.",
            count(gauges.waiters),
        ),
        (
            "claimfs_oldest_wait_seconds",
            "How long the first of those that wait now has waited, in seconds. 0 if none does.",
            waits.as_secs_f64().to_string(),
        ),
        (
            "claimfs_journal_bytes",
            "The length of the journal.",
            gauges.journal_bytes.to_string(),
        ),
    ] {
        head(out, name, "gauge", help);
        line(out, name, "", value);
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ = writeln!(out, "{name}{labels} {value}");
}
