//! Leases, sessions, waiters and events as JSON and as sentences: one object a line, the same
//! wherever it is shown.
//!
//! Does not know: how anything is decided. It repeats in words what the rules decided.

mod event;
pub(crate) mod metrics;
mod notice;
pub(crate) mod progress;
pub(crate) mod ring;

use std::fmt::Write;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::{Value, json};

pub use self::event::EventRecord;
pub(crate) use self::notice::{LOGGED, Notice, notice};
use self::ring::RingRecord;
use crate::core::content::RECORD_TAGS;
use crate::core::identity::Ancestry;
use crate::core::table::{Inode, Lease, Session, Table};
use crate::core::{
    Above, Deadline, Member, Name, Predecessor, Process, Refusal, Root, Rule, Scope, SessionId,
    SessionKey, Token, misleads, printable,
};

/// A time as RFC 3339 in UTC, to the millisecond.
pub(crate) fn moment(at: SystemTime) -> String {
    Timestamp::try_from(at).map_or_else(|_| String::from("?"), |at| format!("{at:.3}"))
}

/// JSON as one line. Characters that would mislead a terminal are escaped as JSON allows, even
/// where JSON does not require it.
pub(crate) fn line(value: &Value) -> String {
    escaped(&value.to_string())
}

/// The line of a JSON text: see [`line()`].
fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if misleads(c) {
            // All of these are below U+10000.
            _ = write!(line, "\\u{:04x}", u32::from(c));
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

/// The record of a lease.
#[derive(Debug)]
pub(crate) struct Record {
    /// The name.
    pub name: Name,
    session: SessionId,
    /// The token.
    pub token: Token,
    pid: u32,
    command: Arc<str>,
    uid: u32,
    since: SystemTime,
    bound: Option<u32>,
    from: Option<Arc<Predecessor>>,
    next: Option<u32>,
    is_process: bool,
    deadline: Option<Deadline>,
    waiters: usize,
    reason: Option<String>,
    survivor: Option<Survivor>,
}

impl Record {
    /// The record of a lease, as it is now.
    pub(crate) fn of(table: &Table, name: &Name) -> Option<Self> {
        let (lease, inode, session) = table.last(name)?;
        let bound = inode.bound.as_deref().filter(|bound| !bound.passes);
        let maker = inode.bound.as_deref().filter(|bound| bound.passes);
        let holder = maker.and_then(|_| table.holder(inode));
        let root = holder.and_then(|holder| session.root(&holder));
        let command = root.map_or(&lease.command, |root| &root.command);
        let above = root.and_then(|root| root.above.process());
        Some(Self {
            name: name.clone(),
            session: session.id.clone(),
            token: lease.token,
            pid: holder.map_or(lease.pid, |holder| holder.pid),
            command: Arc::clone(command),
            uid: inode.content.uid,
            since: lease.since,
            bound: bound.map(|bound| bound.process.pid),
            from: maker.and_then(|maker| maker.from.clone()),
            next: above.map(|above| above.pid),
            is_process: maker.is_some(),
            deadline: inode.deadline.or(session.deadline),
            waiters: table.queue_length(name),
            reason: inode.content.reason().map(String::from),
            survivor: Survivor::of(lease, inode, session),
        })
    }

    /// The record as one flat object. `now` is the time since boot.
    pub(crate) fn json(&self, now: Duration) -> Value {
        let mut record = json!({
            "name": self.name.as_str(),
            "session": self.session.as_str(),
            "token": self.token.0,
            "pid": self.pid,
            "command": &*self.command,
            "uid": self.uid,
            "acquired_at": moment(self.since),
        });
        if let Some(pid) = self.bound {
            record["bound_pid"] = json!(pid);
        }
        if self.is_process {
            record["scope"] = json!(Scope::Process.as_str());
        }
        if let Some(from) = &self.from {
            record["from_pid"] = json!(from.pid);
            record["from_command"] = json!(&*from.command);
            if let Some(exit) = from.exit {
                record["from_exit"] = json!(exit);
            }
        }
        if let Some(pid) = self.next {
            record["next_pid"] = json!(pid);
        }
        if let Some(deadline) = self.deadline {
            record["ttl"] = seconds(deadline.ttl);
            record["expires_in"] = seconds(deadline.until.saturating_sub(now));
        }
        if self.waiters > 0 {
            record["waiters"] = json!(self.waiters);
        }
        if let Some(reason) = &self.reason {
            record["reason"] = json!(reason);
        }
        if let Some(survivor) = &self.survivor {
            survivor.add_to(&mut record, self);
        }
        record
    }
}

/// The holder of a lease whose claimer has ended.
#[derive(Debug)]
enum Survivor {
    /// A living process of its session.
    Session(Rule, u32, Arc<str>),
    /// The process that the body names.
    Bound(u32),
    /// A session without processes, until its deadline.
    Remote,
}

impl Survivor {
    fn of(lease: &Lease, inode: &Inode, session: &Session) -> Option<Self> {
        let is_claimer = |root: &&Root| root.process.pid == lease.pid;
        if session.rule == Rule::Remote {
            return Some(Self::Remote);
        }
        if session.roots.iter().any(|root| is_claimer(&root)) {
            return None;
        }
        match inode.bound.as_deref() {
            Some(bound) if bound.passes || bound.process.pid == lease.pid => None,
            Some(bound) => Some(Self::Bound(bound.process.pid)),
            None => session.roots.first().map(|root| {
                Self::Session(session.rule, root.process.pid, Arc::clone(&root.command))
            }),
        }
    }

    /// Adds who holds the lease, by which rule, and how to free it.
    fn add_to(&self, record: &mut Value, of: &Record) {
        let (pid, session) = (of.pid, of.session.as_str());
        let free = format!("or by 'claimfs break {}'", of.name);
        record["why"] = json!(match self {
            Self::Session(rule, alive, command) => {
                record["rule"] = json!(rule.as_str());
                record["alive_pid"] = json!(alive);
                record["alive_command"] = json!(&**command);
                let rule = rule_in_words(*rule);
                format!(
                    "pid {pid} has ended, and session {session} holds it ({rule}): pid {alive} \
                     ({command}) is alive; free when the session ends, {free}"
                )
            }
            Self::Bound(alive) => {
                record["alive_pid"] = json!(alive);
                format!(
                    "pid {pid} has ended; its body ties it to pid {alive}, which is alive; free \
                     when that ends, {free}"
                )
            }
            Self::Remote => {
                record["rule"] = json!(Rule::Remote.as_str());
                format!(
                    "session {session} has no processes that this mount sees; free when its time \
                     is over, {free}"
                )
            }
        });
    }
}

/// A rule of session scope, as a reason.
fn rule_in_words(rule: Rule) -> &'static str {
    match rule {
        Rule::Registered => "registered in sessions/",
        Rule::Variable => "by a session variable",
        Rule::Agent => "a coding agent",
        Rule::Sandbox => "a sandbox",
        Rule::Posix => "a terminal session",
        Rule::Remote => "until a deadline",
    }
}

/// The record of a lease as JSON: its holder, token and deadline, and how many wait for it. `now`
/// is the time since boot.
pub(crate) fn lease(table: &Table, name: &Name, now: Duration) -> Option<Value> {
    Record::of(table, name).map(|record| record.json(now))
}

/// Seconds as a number with at most three decimals.
fn seconds(time: Duration) -> Value {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if millis % 1000 == 0 {
        json!(millis / 1000)
    } else {
        json!(Duration::from_millis(millis).as_secs_f64())
    }
}

/// The record of a lease as one line. A claim without a body reads like this.
pub fn lease_line(table: &Table, name: &Name, now: Duration) -> String {
    lease(table, name, now).map_or_else(String::new, |record| line(&record))
}

/// A place in a queue, as `waiters` shows it.
#[derive(Debug)]
pub(crate) struct WaiterRecord {
    name: Name,
    place: usize,
    session: Option<SessionId>,
    pid: u32,
    command: Arc<str>,
    uid: u32,
    since: SystemTime,
    ring: Option<RingRecord>,
}

/// All waiters by name, each queue in order.
pub(crate) fn waiters(table: &Table) -> Vec<WaiterRecord> {
    let mut all = Vec::new();
    let rings = table.rings();
    for name in table.queued_names() {
        for (place, (id, waiter)) in table.queue(name).enumerate() {
            let ring = rings.of(id);
            let session = table.session_by_key(waiter.key);
            all.push(WaiterRecord {
                name: name.clone(),
                place: place + 1,
                session: session.map(|session| session.id.clone()),
                pid: waiter.pid,
                command: Arc::clone(&waiter.command),
                uid: waiter.creation.uid,
                since: waiter.since,
                ring: ring.and_then(|ring| RingRecord::of(table, &ring)),
            });
        }
    }
    all
}

/// The content of `waiters`.
pub(crate) fn waiter_lines(waiters: &[WaiterRecord]) -> String {
    let mut lines = String::new();
    for waiter in waiters {
        let mut record = json!({
            "claim": waiter.name.as_str(),
            "place": waiter.place,
            "session": waiter.session.as_ref().map(SessionId::as_str),
            "pid": waiter.pid,
            "command": &*waiter.command,
            "uid": waiter.uid,
            "since": moment(waiter.since),
        });
        if let Some(ring) = &waiter.ring {
            ring.add_to(&mut record);
        }
        lines.push_str(&line(&record));
    }
    lines
}

/// The living process of a lease, with its command: the one that holds it; under session scope the
/// one that claimed or, if that has ended or is a claimfs that runs a command, another root.
pub(crate) fn living(
    table: &Table,
    lease: &Lease,
    inode: &Inode,
    session: &Session,
) -> Option<(u32, Arc<str>)> {
    let shown = |root: &Root| (root.process.pid, Arc::clone(&root.command));
    if let Some(holder) = table.holder(inode) {
        let is_claimer = holder.pid == lease.pid;
        let unknown = || (holder.pid, Arc::from("?"));
        let claimer = || (lease.pid, Arc::clone(&lease.command));
        let known = session.root(&holder).map(shown);
        return Some(known.unwrap_or_else(|| if is_claimer { claimer() } else { unknown() }));
    }
    let maker = session
        .roots
        .iter()
        .find(|root| root.process.pid == lease.pid);
    let mut commands = maker.into_iter().chain(&session.roots);
    let command = commands.find(|root| &*root.command != "claimfs");
    command.or(maker).or(session.roots.first()).map(shown)
}

/// The content of the file of a session.
#[derive(Debug)]
pub(crate) struct SessionRecord {
    id: SessionId,
    uid: u32,
    rule: Rule,
    since: SystemTime,
    roots: Vec<Root>,
    leases: Vec<Name>,
    deadline: Option<Deadline>,
}

impl SessionRecord {
    /// A session as it is now: its roots and its start.
    pub(crate) fn of(session: &Session) -> Self {
        Self {
            id: session.id.clone(),
            uid: session.uid,
            rule: session.rule,
            since: session.since,
            roots: session.roots.clone(),
            leases: Vec::new(),
            deadline: session.deadline,
        }
    }

    /// Adds its leases after a token, at most so many. The last token, if there may be more.
    pub(crate) fn add_leases(
        &mut self,
        table: &Table,
        key: SessionKey,
        after: Token,
        limit: usize,
    ) -> Option<Token> {
        let session = table.session_by_key(key)?;
        let rest = (Bound::Excluded(after), Bound::Unbounded);
        let (mut last, mut count) = (after, 0);
        for token in session.leases.range(rest).take(limit) {
            (last, count) = (*token, count + 1);
            let name = table.name(*token).filter(|name| !name.is_scratch());
            self.leases
                .extend(name.filter(|name| table.lease(*name).is_some()).cloned());
        }
        (count == limit).then_some(last)
    }

    /// The content as one object.
    pub(crate) fn json(&self) -> Value {
        let roots: Vec<Value> = self.roots.iter().map(root).collect();
        let leases: Vec<&str> = self.leases.iter().map(Name::as_str).collect();
        let mut record = json!({
            "id": self.id.as_str(),
            "uid": self.uid,
            "rule": self.rule.as_str(),
            "since": moment(self.since),
            "roots": roots,
            "leases": leases,
        });
        if let Some(deadline) = self.deadline {
            record["ttl"] = seconds(deadline.ttl);
        }
        record
    }
}

/// The attributes of a file in `sessions/`: its roots as a JSON array. To read them costs the same
/// whatever the session holds.
pub(crate) fn session_tags(session: &Session) -> Vec<(String, Vec<u8>)> {
    let roots = session.roots.iter().map(root).collect::<Value>();
    vec![(
        format!("{RECORD_TAGS}roots"),
        roots.to_string().into_bytes(),
    )]
}

fn root(root: &Root) -> Value {
    let mut record = json!({
        "pid": root.process.pid,
        "command": &*root.command,
        "started_at": moment(root.started),
        "registered": root.registered,
    });
    if let Some(above) = root.above.process() {
        record["next_pid"] = json!(above.pid);
    }
    record
}

/// The attributes of the file in `queue/` of a name that is held: the fields of its record, and the
/// record as one JSON object.
pub(crate) fn queue_tags(table: &Table, name: &Name, now: Duration) -> Vec<(String, Vec<u8>)> {
    let mut tags = tags(table, name, now);
    if let Some(record) = lease(table, name, now) {
        tags.push((
            format!("{RECORD_TAGS}record"),
            record.to_string().into_bytes(),
        ));
    }
    tags
}

/// The record of a lease as extended attributes.
pub fn tags(table: &Table, name: &Name, now: Duration) -> Vec<(String, Vec<u8>)> {
    let Some(Value::Object(fields)) = lease(table, name, now) else {
        return Vec::new();
    };
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    fields
        .into_iter()
        .map(|(key, value)| (format!("{RECORD_TAGS}{key}"), text(value).into_bytes()))
        .collect()
}

/// Why a process belongs to a session that its environment does not name.
const STAYS: &str = "you claimed for it, or the process that you are a copy of did, and a process of a session stays so";

/// The content of `self`: the caller's session, the rule that decided it, and the processes whose
/// death ends it. `live` are the roots of that session, if it exists. `is_foreign`: a session
/// of that id exists, but the caller may not join it.
pub(crate) fn identity(
    ancestry: &Ancestry,
    member: Option<&Member>,
    parent: Option<&Member>,
    live: Option<&[Root]>,
    status_from: &str,
    is_foreign: bool,
) -> String {
    let caller = ancestry.caller();
    let scope = member.map(|member| member.scope);
    let then = member.map_or_else(Vec::new, |member| {
        successors(member, live.unwrap_or_default())
    });
    let mut roots: Vec<&Root> = live.into_iter().flatten().collect();
    for own in member.into_iter().flat_map(|member| &member.roots) {
        if roots.iter().all(|there| there.process != own.process) {
            roots.push(own);
        }
    }
    let alone = match scope {
        _ if is_foreign => false,
        Some(Scope::Process) => match then[..] {
            [] => true,
            [next] => ancestry.is_errand(&next.process),
            _ => false,
        },
        _ => matches!(roots.as_slice(), [only] if only.process == caller.process),
    };
    let ends_with = scope.map(|scope| ends_with(scope, then.last().copied()));
    let then = then
        .iter()
        .map(|root| json!({ "pid": root.process.pid, "command": &*root.command }));
    let mut why = why(ancestry, member);
    if is_foreign {
        why += "; but a live session that you are not of has this id: another user's, another sandbox's, or one that lives by \
                its deadline, so claiming answers EPERM: choose another id";
    }
    if scope == Some(Scope::Session)
        && member.is_some_and(|member| member.rule.scope() == Scope::Process)
    {
        why += "; this kernel does not say how a process ended, so all of it holds what any of it claims";
    }
    if alone && member.is_some() {
        why += "; it is this command alone, so what it claims ends with it";
    }
    let mut text = json!({
        "session": member.map(|member| member.id.as_str()),
        "rule": member.map(|member| member.rule.as_str()),
        "why": why,
        "live": live.is_some(),
        "uid": ancestry.uid(),
        "pid": caller.process.pid,
        "command": &*caller.command,
        "roots": roots.into_iter().map(root).collect::<Vec<_>>(),
        "alone": alone,
        "scope": scope.map(Scope::as_str),
        "then": then.collect::<Vec<_>>(),
        "ends_with": ends_with,
        "status_from": status_from,
        "parent_session": parent.map(|member| member.id.as_str()),
    });
    if is_foreign {
        text["foreign"] = json!(true);
    }
    line(&text)
}

/// Why the caller belongs to its session, or has none: the end of a sentence.
fn why(ancestry: &Ancestry, member: Option<&Member>) -> String {
    let variable = ancestry
        .variable()
        .map(|(name, value)| (name, String::from_utf8_lossy(value).into_owned()));
    match (member.map(|member| member.rule), &variable) {
        (Some(Rule::Registered), _) => {
            String::from("a process above you, or yours, is registered in sessions/")
        }
        (Some(Rule::Variable), Some((name, value)))
            if member.is_some_and(|member| member.id.as_str() == value) =>
        {
            format!("your environment has {name}={value}")
        }
        (Some(Rule::Variable), _) => String::from(STAYS),
        (Some(Rule::Agent), _) => match ancestry.agent().map(|(name, at)| (name, at.pid)) {
            Some((name, process)) if ancestry.is_left_behind() => {
                format!("{name} left you behind, by process {process}")
            }
            Some((name, process)) => {
                format!("{name} is above you, or you are it: process {process}")
            }
            None => String::from(STAYS),
        },
        (Some(Rule::Sandbox), _) => String::from(
            "you are in a sandbox, a pid namespace of its own, and it is that sandbox's",
        ),
        (Some(_), _) => {
            String::from("you have no session of your own, so it is your POSIX session's")
        }
        (None, Some((name, value))) => {
            format!(
                "{name}={value} is no valid session id, so claiming answers EINVAL: no '/', no '\\', no leading '.'"
            )
        }
        (None, None) => String::from("it cannot be told now"),
    }
}

/// The thing whose end ends the caller's claims.
fn ends_with(scope: Scope, last: Option<&Root>) -> String {
    match (scope, last) {
        (Scope::Session, _) => String::from("the session"),
        (Scope::Process, None) => String::from("this command"),
        (Scope::Process, Some(last)) => {
            format!("pid {} ({})", last.process.pid, printable(&last.command))
        }
    }
}

/// The processes that a member's claims pass to under process scope, in order. The recorded parent
/// of a live root takes precedence over its current one.
fn successors<'a>(member: &'a Member, live: &'a [Root]) -> Vec<&'a Root> {
    let Some(maker) = member.maker() else {
        return Vec::new();
    };
    let own = || member.heir.iter().chain(&member.roots);
    let root = |process: Process| {
        let is_it = |root: &&Root| root.process == process && root.above != Above::Unknown;
        live.iter().find(is_it).or_else(|| own().find(is_it))
    };
    let above = |at: &&Root| at.above.process().and_then(root);
    let chain = std::iter::successors(root(maker).and_then(|root| above(&root)), above);
    chain.take(live.len() + member.roots.len() + 1).collect()
}

/// The content of `self` for a caller whose ancestry cannot be read.
pub(crate) fn unseen(uid: u32, refusal: Refusal) -> String {
    let why = match refusal {
        Refusal::NotPermitted => {
            "the mount cannot see your process, so it cannot tell whether you live: you may look, and claim for a session \
             that lives by a deadline: echo '{\"claim\":\"NAME\",\"session\":\"ID\",\"seconds\":30}' > control"
        }
        Refusal::TooDeep => {
            "there are more than 1,024 processes above you, or more than 16 MiB of their environments, or it takes more than 50 ms \
             to look at them: you may look, and claim where there are fewer above you"
        }
        Refusal::Shortage => {
            "the server of this mount has no descriptors or no memory left, so it cannot look who you are: try again later"
        }
        // `Unsettled`, and what no caller is refused for.
        _ => "the processes above you changed faster than they could be read: try again",
    };
    line(&json!({ "session": null, "rule": null, "why": why, "live": false, "uid": uid }))
}

/// True if a lease may have ended with the single command that a session variable was set for: it
/// was held for less than a second.
fn is_trap(lease: &Lease, session: &Session, now: SystemTime) -> bool {
    let held = now.duration_since(lease.since).unwrap_or_default();
    session.rule == Rule::Variable && held < Duration::from_secs(1)
}

/// The log line for a lease that was taken from a dead holder.
fn reaped(
    name: &Name,
    lease: &Lease,
    inode: &Inode,
    session: &Session,
    signal: Option<u8>,
    now: SystemTime,
) -> String {
    let held = now.duration_since(lease.since).unwrap_or_default();
    let end = match (&inode.bound, signal) {
        (Some(bound), Some(signal)) => format!(
            ": process {}, which held it, was killed by signal {signal}",
            bound.process.pid
        ),
        (Some(bound), None) if bound.passes => format!(
            ": process {}, which held it, has exited, and there is nobody it passes to",
            bound.process.pid
        ),
        (Some(bound), None) if session.is_alive() => format!(
            ": process {}, to which its pid file binds it, is dead",
            bound.process.pid
        ),
        _ => String::from(" is dead"),
    };
    let hint = if is_trap(lease, session, now) {
        "; if its session variable was set for a single command, set it for the whole script"
    } else {
        ""
    };
    format!(
        "reaped {}: session {} (pid {}, {}){end}; it held the claim for {:.3} s, token {}{hint}",
        name.file(),
        session.id,
        lease.pid,
        printable(&lease.command),
        held.as_secs_f64(),
        lease.token.0,
    )
}
