//! The file `metrics`.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{Guard, Mount, TempDir, skip, text, wait_until};

/// The text format of Prometheus, read strictly: samples by their full name with labels, after HELP
/// and TYPE.
fn metrics(text: &str) -> BTreeMap<String, f64> {
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped = "";
    let mut samples = BTreeMap::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').unwrap().0;
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(
                name == helped && ["counter", "gauge", "histogram"].contains(&kind),
                "{line}"
            );
            assert!(types.insert(name, kind).is_none(), "{name} comes once");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            assert!(
                name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
                "{line}"
            );
            let labels = sample[name.len()..]
                .strip_prefix('{')
                .map(|rest| rest.strip_suffix('}').unwrap());
            if let Some((label, quoted)) = labels.map(|labels| labels.split_once('=').unwrap()) {
                assert!(
                    ["errno", "le", "source", "version"].contains(&label)
                        && quoted.starts_with('"')
                        && quoted.ends_with('"'),
                    "{line}"
                );
            }
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(name);
            let family = if types.get(family) == Some(&"histogram") {
                family
            } else {
                name
            };
            assert_eq!(family, helped, "{line}");
            assert!(
                samples
                    .insert(sample.to_owned(), value.parse().unwrap())
                    .is_none(),
                "{line}"
            );
        }
    }
    samples
}

#[test]
fn metrics_count_what_happened() {
    let Some(mount) = Mount::new() else { return };
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    for name in ["a", "b", "c"] {
        me.claim(name).unwrap();
    }
    other.claim("d").unwrap();
    me.unlink("claims/a").unwrap();
    assert_eq!(other.unlink("claims/b"), Err(libc::EBUSY));
    assert_eq!(other.open("claims/b", libc::O_WRONLY), Err(libc::EBUSY));
    assert_eq!(other.claim(".x"), Err(libc::EINVAL));
    let samples = metrics(&mount.read("metrics"));
    let value = |name: &str| samples.get(name).copied().unwrap_or(-1.0);
    assert_eq!(value("claimfs_grants_total"), 4.0);
    assert_eq!(value("claimfs_releases_total"), 1.0);
    assert_eq!(value("claimfs_reaps_total"), 0.0);
    assert_eq!(value("claimfs_refusals_total{errno=\"EBUSY\"}"), 2.0);
    assert_eq!(value("claimfs_refusals_total{errno=\"EINVAL\"}"), 1.0);
    assert_eq!(value("claimfs_leases"), 3.0);
    assert_eq!(value("claimfs_sessions"), 2.0);
    me.kill();
    other.claim("b").unwrap();
    wait_until("both reaps are counted", || {
        metrics(&mount.read("metrics"))["claimfs_reaps_total"] == 2.0
    });
    let samples = metrics(&mount.read("metrics"));
    assert_eq!(samples["claimfs_leases"], 2.0);
    for name in ["request", "answer"] {
        rises(&samples, &format!("claimfs_{name}_duration_seconds"));
    }
    let of = |name: &str| samples[&format!("claimfs_{name}_duration_seconds_count")];
    assert!(of("answer") > 0.0 && of("answer") <= of("request"));
    let longest = samples["claimfs_longest_answer_seconds"];
    assert!(longest > 0.0 && longest < samples["claimfs_answer_duration_seconds_sum"]);
}

#[test]
fn what_workers_carry_out_is_no_answer_that_others_wait_behind() {
    let Some(mount) = Mount::new() else { return };
    let counts = || {
        let samples = metrics(&mount.read("metrics"));
        ["request", "answer"].map(|name| samples[&format!("claimfs_{name}_duration_seconds_count")])
    };
    let [requests, answers] = counts();
    for _ in 0..100 {
        mount.read("leases");
    }
    let [requests, answers] = {
        let [all, waited] = counts();
        [all - requests, waited - answers]
    };
    assert!(requests >= answers + 100.0, "{requests} {answers}");
}

/// The buckets of a histogram rise to the count of all.
fn rises(samples: &BTreeMap<String, f64>, name: &str) {
    let bound = |sample: &str| match sample.split('"').nth(1).unwrap() {
        "+Inf" => f64::INFINITY,
        bound => bound.parse().unwrap(),
    };
    let mut buckets: Vec<(f64, f64)> = samples
        .iter()
        .filter(|(sample, _)| sample.starts_with(&format!("{name}_bucket")))
        .map(|(sample, count)| (bound(sample), *count))
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{buckets:?}");
    let last = buckets.last().unwrap();
    assert_eq!(
        (last.0, last.1),
        (f64::INFINITY, samples[&format!("{name}_count")])
    );
    assert!(samples[&format!("{name}_sum")] > 0.0);
}

/// promtool(1), as `.ci/run` installs it.
fn promtool() -> Option<Command> {
    let ours = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/target/clients/usr/bin/promtool"
    );
    let found = ["promtool", ours].into_iter().find(|program| {
        let version = Command::new(program).arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        skip("promtool is not installed: .ci/run puts it into target/clients");
    }
    found.map(Command::new)
}

#[test]
fn promtool_has_nothing_to_complain_of() {
    let Some(mount) = Mount::new() else { return };
    let Some(mut promtool) = promtool() else {
        return;
    };
    let mut holder = mount.actor(Some("me"));
    holder.claim("x").unwrap();
    // A family with labels has samples only once there was one.
    assert_eq!(holder.claim(".x"), Err(libc::EINVAL));
    let pipes = promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut child = pipes
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let metrics = mount.read("metrics");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), metrics.as_bytes()).unwrap();
    let said = text(&child.wait_with_output().unwrap());
    assert_eq!(said, (0, String::new(), String::new()), "{metrics}");
}

#[test]
fn waits_and_limits_and_the_journal_are_measured() {
    let Some(mount) = Mount::with(&["--max-leases", "77"]) else {
        return;
    };
    let value = |name: &str| metrics(&mount.read("metrics"))[name];
    assert_eq!(value("claimfs_leases_max"), 77.0);
    assert_eq!(value("claimfs_waiters"), 0.0);
    assert_eq!(value("claimfs_oldest_wait_seconds"), 0.0);
    assert_eq!(
        value(concat!(
            "claimfs_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"}"
        )),
        1.0
    );
    let mut holder = mount.actor(Some("me"));
    holder.claim("x").unwrap();
    holder.claim("y").unwrap();
    let waiter = |name: &str, session: &str| {
        let mut command = mount.claimfs(&["claim", name, "--wait"]);
        command.env("CLAIMFS_SESSION", session).stdin(Stdio::null());
        Guard::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
    };
    let began = SystemTime::now();
    let first = waiter("y", "w1");
    wait_until("one waits", || value("claimfs_waiters") == 1.0);
    wait_until("it has waited", || {
        value("claimfs_oldest_wait_seconds") > 0.3
    });
    let _second = waiter("x", "w2");
    wait_until("two wait", || value("claimfs_waiters") == 2.0);
    let oldest = value("claimfs_oldest_wait_seconds");
    assert!(
        oldest > 0.3 && oldest <= began.elapsed().unwrap().as_secs_f64(),
        "{oldest}"
    );
    drop(first);
    wait_until("it is the other's wait", || {
        value("claimfs_waiters") == 1.0 && value("claimfs_oldest_wait_seconds") < oldest
    });
    let length = mount.state.join("journal");
    let journal = value("claimfs_journal_bytes") as u64;
    // The file is longer: room is set aside at its end.
    assert!(
        journal > 100 && journal <= length.metadata().unwrap().len(),
        "{journal}"
    );
    holder.claim("z").unwrap();
    assert!(value("claimfs_journal_bytes") as u64 > journal);
}

#[test]
fn restarts_are_counted_and_the_time_of_the_mount_stays() {
    for options in [&[][..], &["--without-resend"]] {
        let since_epoch = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
        };
        let before = since_epoch().as_secs();
        let Some(mount) = Mount::with(options) else {
            return;
        };
        let value = |name: &str| metrics(&mount.read("metrics"))[name];
        assert_eq!(value("claimfs_server_restarts_total"), 0.0);
        let start = value("claimfs_start_time_seconds") as u64;
        assert!(
            before <= start && start <= since_epoch().as_secs(),
            "{start}"
        );
        while since_epoch() < Duration::from_secs(start + 1) {
            std::thread::yield_now();
        }
        for restarts in 1..=2 {
            mount.kill_server();
            wait_until("it answers again", || {
                std::fs::read(mount.path("metrics")).is_ok()
            });
            assert_eq!(value("claimfs_server_restarts_total"), f64::from(restarts));
            assert_eq!(value("claimfs_start_time_seconds") as u64, start);
        }
    }
}

#[test]
fn promtool_takes_the_rules_of_the_manual() {
    let Some(mut promtool) = promtool() else {
        return;
    };
    let page = include_str!("../../../src/manual/operations.md");
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    let (rules, _) = rest.split_once("```").unwrap();
    let temp = TempDir::new();
    let file = temp.path().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    let output = promtool
        .args(["check", "rules"])
        .arg(&file)
        .output()
        .unwrap();
    let (code, out, err) = text(&output);
    assert!(
        code == 0 && out.contains("SUCCESS: 4 rules found"),
        "{out}{err}"
    );
}
