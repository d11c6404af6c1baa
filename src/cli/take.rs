//! Taking one of several names, or several at once: shared by `claim` and `run`.

use std::fs;
use std::io;
use std::slice;

use serde_json::{Value, json};

use super::interrupt::Interrupt;
use super::names::Wanted;
use super::queue::{self, Patience, Waited};
use super::tool::{self, Mount};
use super::{Exit, Failure};
use crate::core::Name;

/// Give up after this many tries if a name looks free each time and is taken each time.
const ATTEMPTS: usize = 100;

/// The number of names that others hold that are shown one by one.
const SHOWN: usize = 3;

/// A process that takes names.
pub(super) struct Taker<'a> {
    pub mount: &'a Mount,
    /// Whether a lease is its own, by the record.
    pub is_own: &'a dyn Fn(&Value) -> bool,
    /// The caller as `self` had it, who may hold a name that this waits for.
    pub caller: Option<&'a Value>,
    /// Its pid in the mount's own pid namespace, if others of its session may take names too.
    pub pid: Option<&'a Value>,
    pub patience: Patience,
    /// The signals that end the wait for all of several names.
    pub interrupt: Option<&'a Interrupt>,
}

/// The result of taking names.
pub(super) enum Took {
    /// These names are its own, and whether they are so from now on.
    Names(Vec<(Name, bool)>),
    /// Others hold these.
    Held(Vec<(Name, Value)>),
    /// It has waited, and others hold these still.
    InVain(Vec<(Name, Value)>),
    /// A signal ended the wait.
    Stopped,
}

impl Taker<'_> {
    pub(super) fn take(&self, wanted: &Wanted) -> Result<Took, Failure> {
        match wanted {
            Wanted::Any(names) => self.any(names),
            Wanted::All(names) if self.patience == Patience::None => self.all_at_once(names),
            Wanted::All(names) => self.one_after_another(names),
        }
    }

    /// Takes the first of the names that is free, unless one is its own already.
    fn any(&self, names: &[Name]) -> Result<Took, Failure> {
        let until = self.patience.end();
        for _ in 0..ATTEMPTS {
            // One that is free must not be taken beside its own.
            if names.len() > 1
                && let Some((name, _)) = self.own(&self.records(names)?)
            {
                return Ok(Took::Names(vec![(name.clone(), false)]));
            }
            for name in names {
                if queue::create(self.mount, name)? {
                    return Ok(Took::Names(vec![(name.clone(), true)]));
                }
            }
            let records = self.records(names)?;
            if let Some((name, _)) = self.own(&records) {
                return Ok(Took::Names(vec![(name.clone(), false)]));
            }
            // One is free in the meantime: try again.
            if records.len() < names.len() {
                continue;
            }
            if self.patience == Patience::None {
                return Ok(Took::Held(records));
            }
            self.say_own(&records);
            return match queue::wait_any(self.mount, names, until, None, None)? {
                Waited::Granted(place) => Ok(Took::Names(vec![(names[place].clone(), true)])),
                Waited::InVain | Waited::Stopped => {
                    let now = self.records(names)?;
                    Ok(Took::InVain(if now.is_empty() { records } else { now }))
                }
            };
        }
        Err(busy(names))
    }

    /// Takes all of the names in one step, or none.
    fn all_at_once(&self, names: &[Name]) -> Result<Took, Failure> {
        let mut taken: Vec<&Name> = Vec::new();
        for _ in 0..ATTEMPTS {
            let (mut held, mut free) = (Vec::new(), Vec::new());
            for name in names {
                match self.mount.lease(name)? {
                    Some(record) if !(self.is_own)(&record) => held.push((name.clone(), record)),
                    Some(_) => {}
                    None => free.push(name),
                }
            }
            if !held.is_empty() {
                // Those that it took before one of its own was lost.
                let mut back = Taken::new(self);
                taken.iter().try_for_each(|name| back.add(name))?;
                return Ok(Took::Held(held));
            }
            if free.is_empty() {
                let is_new = |name: &Name| (name.clone(), taken.contains(&name));
                return Ok(Took::Names(names.iter().map(is_new).collect()));
            }
            let list: Vec<&str> = free.iter().map(|name| name.as_str()).collect();
            match self.mount.control(&json!({ "claim": list })) {
                Ok(()) => taken.extend(free),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    return Err(Failure::unavailable(
                        "the server of this mount cannot take several names in one step: try with --wait, or \
                         'claimfs upgrade' the mount",
                    ));
                }
                Err(error) => return Err(queue::refused(self.mount, free[0], &error)),
            }
        }
        Err(busy(names))
    }

    /// Takes the names in their order, and waits for each. All who do this take them in the same
    /// order, so none of them waits for another that waits for it.
    fn one_after_another(&self, names: &[Name]) -> Result<Took, Failure> {
        let until = self.patience.end();
        let mut taken = Taken::new(self);
        let mut held: Vec<&Name> = Vec::new();
        for name in names {
            if self.interrupt.is_some_and(Interrupt::is_over) {
                return Ok(Took::Stopped);
            }
            let record = self.mount.lease(name)?;
            if !record.as_ref().is_some_and(self.is_own) {
                if !queue::create(self.mount, name)? {
                    self.say_own(&Vec::from_iter(record.clone().map(|it| (name.clone(), it))));
                    let told = record.as_ref().filter(|_| !held.is_empty());
                    if let Some(record) = told {
                        say_meanwhile(self.mount, name, record, &held);
                    }
                    let this = slice::from_ref(name);
                    match queue::wait_any(self.mount, this, until, self.interrupt, told)? {
                        Waited::Granted(_) => {}
                        Waited::Stopped => return Ok(Took::Stopped),
                        Waited::InVain => {
                            let now = self.mount.lease(name)?.or(record).unwrap_or_default();
                            return Ok(Took::InVain(vec![(name.clone(), now)]));
                        }
                    }
                }
                taken.add(name)?;
            }
            held.push(name);
        }
        // Another may have broken the first while the last was waited for.
        for name in names {
            let record = self.mount.lease(name)?;
            if !record.as_ref().is_some_and(self.is_own) {
                return Err(Failure::held(format!(
                    "claims/{name}: lost before the others were taken"
                )));
            }
        }
        if self.interrupt.is_some_and(Interrupt::is_over) {
            return Ok(Took::Stopped);
        }
        let is_new = |name: &Name| (name.clone(), taken.has(name));
        let names = names.iter().map(is_new).collect();
        taken.keep();
        Ok(Took::Names(names))
    }

    /// Says which of the names that it is about to wait for the caller itself holds.
    fn say_own(&self, records: &[(Name, Value)]) {
        for (name, record) in records {
            say_own(self.mount, self.caller, name, record);
        }
    }

    /// The records of those names that are held.
    fn records(&self, names: &[Name]) -> Result<Vec<(Name, Value)>, Failure> {
        let mut records = Vec::new();
        for name in names {
            let record = self.mount.lease(name)?;
            records.extend(record.map(|record| (name.clone(), record)));
        }
        Ok(records)
    }

    /// The first of these that is its own.
    fn own<'r>(&self, records: &'r [(Name, Value)]) -> Option<&'r (Name, Value)> {
        records.iter().find(|(_, record)| (self.is_own)(record))
    }
}

/// Names that were taken, which are given back when this is dropped.
struct Taken<'a> {
    taker: &'a Taker<'a>,
    /// Each with the token that it was granted with.
    names: Vec<(Name, Value)>,
}

impl<'a> Taken<'a> {
    fn new(taker: &'a Taker<'a>) -> Self {
        let names = Vec::new();
        Self { taker, names }
    }

    /// Adds a name, unless another process of this session has taken it.
    fn add(&mut self, name: &Name) -> Result<(), Failure> {
        let record = self.taker.mount.lease(name)?.unwrap_or_default();
        let is_taken_here = self.taker.pid.is_none_or(|pid| record["pid"] == *pid);
        if is_taken_here && (self.taker.is_own)(&record) {
            self.names.push((name.clone(), record["token"].clone()));
        }
        Ok(())
    }

    fn has(&self, name: &Name) -> bool {
        self.names.iter().any(|(taken, _)| taken == name)
    }

    fn keep(mut self) {
        self.names.clear();
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mount = self.taker.mount;
        for (name, token) in &self.names {
            let record = mount.lease(name).ok().flatten().unwrap_or_default();
            if record["token"] == *token && (self.taker.is_own)(&record) {
                _ = fs::remove_file(mount.path(&["claims", name.as_str()]));
            }
        }
    }
}

/// Says which names are held while another is waited for.
fn say_meanwhile(mount: &Mount, name: &Name, record: &Value, held: &[&Name]) {
    tool::complain(&format!(
        "{}; waiting, and holding {} meanwhile",
        tool::held_by(mount, name, record),
        listed(held)
    ));
}

/// The first few of these names, and how many more there are.
pub(super) fn listed(names: &[&Name]) -> String {
    let shown = names.iter().take(SHOWN);
    let shown: Vec<String> = shown.map(|name| format!("claims/{name}")).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Says of names that others hold who holds them: of the first few, and how many more there are.
pub(super) fn say_held(held: &[(Name, Value)], text: impl Fn(&Name, &Value) -> String) {
    for (name, record) in held.iter().take(SHOWN) {
        tool::complain_of(&text(name, record), record);
    }
    match held.len().saturating_sub(SHOWN) {
        0 => {}
        1 => tool::complain("and another name is held by another; see 'claimfs ls'"),
        more => tool::complain(&format!(
            "and {more} more names are held by others; see 'claimfs ls'"
        )),
    }
}

/// Says of a name that is about to be waited for that the caller itself holds it, if it does.
pub(super) fn say_own(mount: &Mount, caller: Option<&Value>, name: &Name, record: &Value) {
    if let Some(text) = own(mount, caller, name, record) {
        tool::complain_of(&format!("{text}; this waits until then"), record);
    }
}

/// The message for a name that the caller itself holds, though not as this command needs it.
fn own(mount: &Mount, caller: Option<&Value>, name: &Name, record: &Value) -> Option<String> {
    tool::is_of(caller?, record).then(|| {
        format!(
            "claims/{name}: you hold it yourself, by {}, so your commands have it without this; \
             'claimfs release {name}' gives it back",
            tool::holder(mount, record)
        )
    })
}

/// The message for a name that is held, by the caller itself or by another.
pub(super) fn held(mount: &Mount, caller: Option<&Value>, name: &Name, record: &Value) -> String {
    own(mount, caller, name, record).unwrap_or_else(|| tool::held_by(mount, name, record))
}

/// The message for a name that was waited for and that another holds still.
pub(super) fn in_vain(mount: &Mount, name: &Name, record: &Value) -> String {
    format!("{}; waited in vain", tool::held_by(mount, name, record))
}

fn busy(names: &[Name]) -> Failure {
    let names: Vec<&Name> = names.iter().collect();
    Failure {
        exit: Exit::Held,
        text: format!(
            "{}: taken and freed by others all the time; try again",
            listed(&names)
        ),
    }
}
