//! The pure core, without a mount: the rules of the table and of identity one by one, random
//! commands beside a reference, and the bodies of the fuzz targets. No test here starts a process;
//! only the reference and the fuzz targets read and write journals.

/// Rules 3 and 4 of identity: the agents that are known by name.
mod agents;
/// The bodies of the fuzz targets, over the corpus.
mod fuzzed;
/// Rules 1, 2 and 5 of identity, on a made-up tree of processes.
pub mod identity;
/// The rules of the table one by one.
pub mod model;
/// The ranges of numbers.
mod numbers;
/// Listings in pieces.
mod past;
/// All that three sessions can do with four paths, and scaffolding.
mod paths;
/// Random steps beside a reference that was written from the manual.
mod reference;
/// Waiters that wait for each other.
mod rings;
/// Process scope.
mod scope;
/// All that three sessions can do with two names.
mod small_world;
/// Who is woken.
mod woken;
