//! Waiting for a name, and watching names: the queue, `events`, and inotify.

/// Every line of `events`, in order.
mod events;
/// Waiters that are killed as they are granted a name.
mod granted;
mod history;
/// The order of a queue, and who leaves it.
mod queue;
/// Waiters that wait for each other, as `waiters` and progress lines show them.
mod rings;
/// The inotify events of claims.
mod watchers;
