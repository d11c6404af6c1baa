//! How many lines the log takes: about each uid, about all users, and in total.
//!
//! Promises: pure, the time is an argument; memory for [`UIDS_MAX`] uids, however many there are.
//! Users cannot use up the lines that are not about users.
//!
//! Does not know: clocks, files, what the lines say.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A rate of lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Lines a second, on average.
    pub per_second: u32,
    /// Lines at once, after a pause.
    pub burst: u32,
}

/// The rate of lines about one uid.
pub(crate) const UID: Rate = Rate {
    per_second: 10,
    burst: 120,
};

/// The rate of lines about all uids but root, so that a user with many uids gains little.
const USERS: Rate = Rate {
    per_second: 50,
    burst: 500,
};

/// The rate of lines about root.
const ROOT: Rate = Rate {
    per_second: 100,
    burst: 1000,
};

/// The rate of lines that can be repeated without end by an unknown user.
const NOBODY: Rate = Rate {
    per_second: 10,
    burst: 100,
};

/// The rate of all lines.
const ALL: Rate = Rate {
    per_second: 200,
    burst: 2000,
};

// Some lines are left for those that no user causes.
const _: () = assert!(ALL.per_second > USERS.per_second + ROOT.per_second + NOBODY.per_second);
const _: () = assert!(ALL.burst > USERS.burst + ROOT.burst + NOBODY.burst);

/// How many uids besides root are told apart; the others share the rate of one.
pub(super) const UIDS_MAX: usize = 64;

/// How long after the first line that is left out a line about that is written.
const DUE: Duration = Duration::from_secs(1);

/// The users that lines are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// One user.
    Uid(u32),
    /// The users beyond the first [`UIDS_MAX`].
    OtherUids,
    /// It is not known who causes them.
    Nobody,
    /// All lines.
    All,
}

/// Lines that were left out. Displayed, it is a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// The users that they were about.
    pub whose: Whose,
    /// How many.
    pub count: u64,
}

/// The lines that were written and left out so far, as far as they count.
#[derive(Debug)]
pub(super) struct Limits {
    uids: BTreeMap<u32, Tally>,
    others: Tally,
    users: Bucket,
    nobody: Tally,
    all: Tally,
}

/// A leaky bucket, as the time at which it will be empty.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket(Duration);

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    bucket: Bucket,
    left_out: u64,
    /// When the first of them was left out.
    since: Duration,
}

impl Limits {
    /// Empty buckets.
    pub(super) const fn new() -> Self {
        const NONE: Tally = Tally {
            bucket: Bucket(Duration::ZERO),
            left_out: 0,
            since: Duration::ZERO,
        };
        Self {
            uids: BTreeMap::new(),
            others: NONE,
            users: NONE.bucket,
            nobody: NONE,
            all: NONE,
        }
    }

    /// Counts a line about a uid, or about an unknown user. False if there is no room: then it
    /// counts as left out.
    pub(super) fn admits(&mut self, uid: Option<u32>, now: Duration) -> bool {
        let users = uid.filter(|uid| *uid != 0).map(|_| self.users);
        let (tally, rate) = match uid {
            None => (&mut self.nobody, NOBODY),
            Some(uid) => self.of(uid, now),
        };
        let own = tally.bucket.after_one(rate, now);
        let users = users.map(|users| users.after_one(USERS, now));
        let (Some(own), Some(users)) = (own, users.unwrap_or(Some(Bucket::default()))) else {
            tally.leave_out(now);
            return false;
        };
        tally.bucket = own;
        self.users.0 = self.users.0.max(users.0);
        true
    }

    /// The same for all lines, those that [`Limits::admits`] has admitted included.
    pub(super) fn admits_any(&mut self, now: Duration) -> bool {
        let after = self.all.bucket.after_one(ALL, now);
        match after {
            Some(after) => self.all.bucket = after,
            None => self.all.leave_out(now),
        }
        after.is_some()
    }

    /// Takes the lines that were left out and are due to be mentioned.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<LeftOut> {
        let due = self.tallies();
        let due = due.filter(|(_, tally)| tally.due().is_some_and(|at| at <= now));
        due.map(|(whose, tally)| LeftOut {
            whose,
            count: std::mem::take(&mut tally.left_out),
        })
        .collect()
    }

    /// When the next of them are due.
    pub(super) fn next_due(&mut self) -> Option<Duration> {
        self.tallies().filter_map(|(_, tally)| tally.due()).min()
    }

    fn tallies(&mut self) -> impl Iterator<Item = (Whose, &mut Tally)> {
        let uids = self.uids.iter_mut();
        let uids = uids.map(|(uid, tally)| (Whose::Uid(*uid), tally));
        uids.chain([
            (Whose::OtherUids, &mut self.others),
            (Whose::Nobody, &mut self.nobody),
            (Whose::All, &mut self.all),
        ])
    }

    /// The tally of a uid: its own, if there is room for one.
    fn of(&mut self, uid: u32, now: Duration) -> (&mut Tally, Rate) {
        let rate = if uid == 0 { ROOT } else { UID };
        if self.uids.len() >= UIDS_MAX && !self.uids.contains_key(&uid) {
            self.uids
                .retain(|_, tally| tally.left_out > 0 || tally.bucket.0 > now);
        }
        // Root always has its own.
        if uid == 0 || self.uids.len() < UIDS_MAX || self.uids.contains_key(&uid) {
            (self.uids.entry(uid).or_default(), rate)
        } else {
            (&mut self.others, rate)
        }
    }
}

impl Bucket {
    /// The bucket after one more line. `None` if it would overflow.
    fn after_one(self, rate: Rate, now: Duration) -> Option<Self> {
        let each = Duration::from_secs(1) / rate.per_second;
        let full = self.0.max(now) + each;
        (full <= now + each * rate.burst).then_some(Self(full))
    }
}

impl Tally {
    fn leave_out(&mut self, now: Duration) {
        if self.left_out == 0 {
            self.since = now;
        }
        self.left_out += 1;
    }

    fn due(&self) -> Option<Duration> {
        (self.left_out > 0).then(|| self.since + DUE)
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.whose {
            Whose::Uid(uid) => write!(f, "uid {uid}: ")?,
            Whose::OtherUids => f.write_str("other uids: ")?,
            Whose::Nobody => f.write_str("of lines that may come again and again, ")?,
            Whose::All => f.write_str("of all lines, ")?,
        }
        let count = grouped(self.count);
        match self.count {
            1 => f.write_str("1 line was left out"),
            _ => write!(f, "{count} lines were left out"),
        }
    }
}

/// A number with a comma before each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// How many of so many lines about a uid are admitted at once.
    fn admitted(limits: &mut Limits, uid: Option<u32>, lines: u32, now: Duration) -> u32 {
        (0..lines).map(|_| u32::from(limits.admits(uid, now))).sum()
    }

    #[test]
    fn a_uid_has_its_burst_and_then_so_many_lines_a_second() {
        let mut limits = Limits::new();
        assert_eq!(
            admitted(&mut limits, Some(1001), 5000, seconds(7.0)),
            UID.burst
        );
        let mut later = 0;
        for millisecond in 0..10_000 {
            later += admitted(
                &mut limits,
                Some(1001),
                3,
                seconds(7.0 + f64::from(millisecond) / 1000.0),
            );
        }
        assert!(
            (UID.per_second * 10 - 1..=UID.per_second * 10).contains(&later),
            "{later}"
        );
        assert_eq!(
            admitted(&mut limits, Some(1001), 5000, seconds(100.0)),
            UID.burst,
            "after a rest"
        );
    }

    #[test]
    fn what_was_left_out_is_told_a_second_later_and_once() {
        let mut limits = Limits::new();
        admitted(&mut limits, Some(1001), UID.burst + 4321, seconds(5.0));
        assert_eq!(limits.next_due(), Some(seconds(6.0)));
        assert_eq!(limits.take_due(seconds(5.9)), []);
        let told: Vec<String> = limits
            .take_due(seconds(6.0))
            .iter()
            .map(LeftOut::to_string)
            .collect();
        assert_eq!(told, ["uid 1001: 4,321 lines were left out"]);
        assert_eq!(
            (limits.take_due(seconds(9.0)), limits.next_due()),
            (vec![], None)
        );
        let sentence = |whose, count| LeftOut { whose, count }.to_string();
        assert_eq!(sentence(Whose::Uid(0), 1), "uid 0: 1 line was left out");
        assert_eq!(
            sentence(Whose::OtherUids, 1_234_567),
            "other uids: 1,234,567 lines were left out"
        );
    }

    #[test]
    fn one_uid_takes_nothing_from_another_or_from_the_server() {
        let mut limits = Limits::new();
        let now = seconds(1.0);
        admitted(&mut limits, Some(1001), 10_000, now);
        assert_eq!(admitted(&mut limits, Some(1002), 10_000, now), UID.burst);
        assert_eq!(admitted(&mut limits, Some(0), 10_000, now), ROOT.burst);
        assert_eq!(admitted(&mut limits, None, 10_000, now), NOBODY.burst);
        assert!(limits.admits_any(now));
    }

    #[test]
    fn many_uids_have_together_what_users_have_and_are_not_all_remembered() {
        let mut limits = Limits::new();
        let mut lines = 0;
        for uid in 100_000..165_536 {
            lines += admitted(&mut limits, Some(uid), 20, seconds(1.0));
        }
        assert_eq!(lines, USERS.burst);
        assert!(limits.uids.len() <= UIDS_MAX);
        assert!(limits.admits(Some(0), seconds(1.0)), "root has a place");
        let told: u64 = limits
            .take_due(seconds(2.0))
            .iter()
            .map(|left| left.count)
            .sum();
        assert_eq!(
            told,
            20 * 65_536 - u64::from(USERS.burst),
            "each line is counted"
        );
        // Who has nothing left to be told makes room for others.
        assert!(limits.admits(Some(7), seconds(1000.0)));
        assert!(limits.uids.contains_key(&7) && limits.uids.len() == 1);
    }

    #[test]
    fn an_error_in_a_loop_is_bounded_too() {
        let mut limits = Limits::new();
        let mut lines = 0_u32;
        for _ in 0..100_000 {
            lines += u32::from(limits.admits_any(seconds(1.0)));
        }
        assert_eq!(lines, ALL.burst);
    }
}
