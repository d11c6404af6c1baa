//! The answers of calls on a real mount, one file for each kind of entry or rule. A test of an
//! errno or of a result belongs here, with the regressions of the same rule in the pure core.

/// The same calls on a claim and on tmpfs.
mod alike;
/// Names taken from holders that live.
mod breaking;
/// Programs that delete or repair all that they find.
mod cleaners;
/// Entries below a directory claim.
mod inside;
/// Claims that are directories, symlinks and further names.
mod kinds;
/// Files of claims and of the mount itself.
mod mount;
/// One lease, read alone.
mod one_lease;
/// Reservations of paths.
mod paths;
/// Calls of a second user: the uid rules.
mod permission;
/// The pid-file idiom.
mod pidfile;
/// Reasons for claims.
mod reasons;
/// Sessions without processes, for callers that the mount cannot see.
mod remote;
/// Names with a leading dot.
mod scratch;
/// The table of the manual: each call on a name that is free, stale, held, or another's.
mod table;
/// Deadlines, and leases that are given to another session.
mod terms;
