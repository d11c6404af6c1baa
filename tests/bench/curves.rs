//! What a call costs beside crowds of growing size, relative to what it costs beside the smallest
//! in the same rounds: a claim with its release, a claim that is refused, and a handoff.

use std::path::{Path, PathBuf};

use crate::chart;
use crate::common::{Server, mount_with_state};
use crate::crowds;
use crate::measure::Target::{AtMost, Told};
use crate::measure::{c_path, claim, claim_and_release, line, median, time};
use crate::people::Helper;

const ROUNDS: usize = 15;
const CALLS: u32 = 60;
const HANDOFFS: usize = 20;

/// The bound of the largest, relative to the smallest.
const LIMIT: f64 = 1.5;

/// A mount with a crowd, and a line of three who hand a name on.
struct Side {
    mount: PathBuf,
    baton: Helper,
    crowd: Vec<Helper>,
    made: usize,
    _server: Server,
}

impl Side {
    /// Without a crowd yet. Its journal is in memory, since a command of `control` waits for it.
    fn new() -> Self {
        let server = mount_with_state(Path::new("/dev/shm"));
        let mount = server.mount();
        let mut baton = crowds::start("terminals", &mount);
        baton.ask("3 5");
        Self {
            mount,
            baton,
            crowd: Vec::new(),
            made: 0,
            _server: server,
        }
    }

    /// Has the process that plays this part make more, up to so many.
    fn grow(&mut self, part: &str, count: usize) {
        if self.crowd.is_empty() {
            self.crowd.push(crowds::start(part, &self.mount));
        }
        self.crowd[0].ask(&format!("{} {count}", self.made));
        self.made = count;
    }

    /// Microseconds of a claim with its release, a refused claim and a handoff.
    fn costs(&mut self) -> [f64; 3] {
        let free = c_path(&self.mount.join("claims/free"));
        let held = c_path(&self.mount.join("claims/held"));
        let mut pairs: Vec<f64> = (0..CALLS)
            .map(|_| time(1, || claim_and_release(&free)))
            .collect();
        let mut refused: Vec<f64> = (0..CALLS)
            .map(|_| time(1, || assert!(!claim(&held))))
            .collect();
        let handoff = self.baton.ask(&format!("3 {HANDOFFS}"));
        [median(&mut pairs), median(&mut refused), handoff]
    }
}

const CALLED: [&str; 3] = ["claim + release", "refused claim", "handoff"];

/// A curve of three calls over the size of a crowd that `grow` makes of a side.
fn beside(file: &str, what: &str, sizes: &[usize], mut grow: impl FnMut(&mut Side, usize)) {
    let mut mounts = [Side::new(), Side::new()];
    grow(&mut mounts[0], sizes[0]);
    let mut points = Vec::new();
    for size in sizes {
        grow(&mut mounts[1], *size);
        let mut figures = [const { [const { Vec::new() }; 3] }; 2];
        for _ in 0..ROUNDS {
            for (side, figures) in mounts.iter_mut().zip(&mut figures) {
                for (figure, figures) in side.costs().into_iter().zip(figures) {
                    figures.push(figure);
                }
            }
        }
        let [few, many] = figures.map(|figures| figures.map(|mut figures| median(&mut figures)));
        let ratios = [0, 1, 2].map(|at| many[at] / few[at]);
        let is_last = Some(size) == sizes.last();
        for at in 0..3 {
            let target = if is_last { AtMost(LIMIT) } else { Told };
            let what = format!(
                "{} beside {size} {what}, to that beside {}",
                CALLED[at], sizes[0]
            );
            line(&what, ratios[at], target);
        }
        points.push((*size as f64, ratios));
    }
    let title = format!("What a call costs beside so many {what}");
    draw(file, &title, CALLED, &points);
}

/// A curve of a handoff in a line that grows, which a part of `crowds` makes.
fn handoffs(file: &str, part: &str, what: &str, sizes: &[usize], limit: f64) {
    let servers = [0, 1].map(|_| mount_with_state(Path::new("/dev/shm")));
    let mut lines = servers
        .each_ref()
        .map(|server| crowds::start(part, &server.mount()));
    let mut points = Vec::new();
    for size in sizes {
        let mut figures = [const { Vec::new() }; 2];
        // A line of descriptors is made again each time.
        let rounds = if part == "descriptors" { 1 } else { ROUNDS };
        let each = ROUNDS * HANDOFFS / rounds;
        for _ in 0..rounds {
            for (at, size) in [sizes[0], *size].into_iter().enumerate() {
                figures[at].push(lines[at].ask(&format!("{size} {each}")));
            }
        }
        let [few, many] = figures.map(|mut figures| median(&mut figures));
        let is_last = Some(size) == sizes.last();
        let target = if is_last { AtMost(limit) } else { Told };
        let text = format!("handoff in a line of {size} {what}, to one of {}", sizes[0]);
        line(&text, many / few, target);
        line("  microseconds", many, Told);
        points.push((*size as f64, [many / few]));
    }
    let title = format!("What a handoff costs in a line of so many {what}");
    draw(file, &title, ["handoff"], &points);
}

fn draw<const N: usize>(file: &str, title: &str, series: [&str; N], points: &[(f64, [f64; N])]) {
    let svg = chart::curves(title, series, LIMIT, points);
    println!("{}", chart::write(file, &svg).display());
}

pub fn all(is_wanted: impl Fn(&str) -> bool) {
    if is_wanted("waiters") {
        let sizes = [3, 50, 800, 3200];
        let file = "scale-terminal.svg";
        handoffs(file, "terminal", "waiters of one terminal", &sizes, 2.0);
        let file = "scale-terminals.svg";
        handoffs(file, "terminals", "waiters, a terminal each", &sizes, LIMIT);
        let file = "scale-descriptors.svg";
        let sizes = [8, 100, 1000, 8000];
        handoffs(
            file,
            "descriptors",
            "descriptors of one process",
            &sizes,
            LIMIT,
        );
    }
    if is_wanted("lines") {
        // One side keeps its crowd of leases, whose names are waited for.
        let sizes = [1, 100, 1000, 10_000];
        beside(
            "scale-lines.svg",
            "lines with a waiter each",
            &sizes,
            |side, count| {
                if side.crowd.is_empty() {
                    side.crowd = vec![
                        Helper::start("crowd", "crowd", &side.mount),
                        crowds::start("lines", &side.mount),
                    ];
                    side.crowd[0].ask(&format!("0 {}", sizes[sizes.len() - 1]));
                }
                side.crowd[1].ask(&count.to_string());
            },
        );
    }
    if is_wanted("deadlines") {
        let sizes = [10, 1000, 10_000, 100_000];
        let what = "sessions with a deadline, a lease each";
        beside("scale-sessions.svg", what, &sizes, |side, count| {
            side.grow("remote", count);
        });
    }
    if is_wanted("readers") {
        let sizes = [1, 10, 100, 1000];
        beside(
            "scale-readers.svg",
            "readers of events",
            &sizes,
            |side, count| {
                side.grow("readers", count);
            },
        );
    }
}
