//! The files of a state directory: opened without waiting and without following anything, read
//! within bounds, set aside.
//!
//! Promises: nothing here waits for another process, and what is read into memory is bounded by
//! what is whole in a file, not by its length.
//!
//! Deliberately ignorant of: what the files say.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::frame::{HEADER, frame_at, payload_length};
use crate::process::effective_uid;

/// How much of a file is read at once, in bytes.
const CHUNK: u64 = 1 << 20;

/// How much is read behind the last whole frame at most, in bytes, once no frame can follow.
const REST_MAX: usize = 16 << 20;

/// Why a file is not used.
#[derive(Debug)]
pub enum Unfit {
    /// It is not what belongs there, for this reason: it may be set aside.
    Foreign(String),
    /// It cannot be read now.
    Unreadable(io::Error),
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// Opens a regular file that belongs to this process's user or to root, if it exists.
pub fn open(path: &Path, for_writing: bool) -> Result<Option<File>, Unfit> {
    // Looked at first, because to open a device may do something to it.
    match fs::symlink_metadata(path) {
        Ok(metadata) => is_fit(&metadata)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let file = OpenOptions::new()
        .read(true)
        .write(for_writing)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    is_fit(&file.metadata()?)?;
    Ok(Some(file))
}

fn is_fit(metadata: &Metadata) -> Result<(), Unfit> {
    let kind = metadata.file_type();
    let what = if kind.is_file() {
        let (owner, own) = (metadata.uid(), effective_uid());
        if owner == own || owner == 0 {
            return Ok(());
        }
        return Err(Unfit::Foreign(format!(
            "it belongs to uid {owner}, and neither to root nor to uid {own}, which this is"
        )));
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a fifo"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(Unfit::Foreign(format!("it is {what}, not a regular file")))
}

/// Reads frames, and what comes behind them: all of it, or the beginning where no frame can
/// follow. Also says how long the file is, in bytes.
pub fn load(file: &File) -> (Vec<u8>, u64, io::Result<()>) {
    let (mut bytes, mut at) = (Vec::new(), 0);
    let mut is_spoiled = false;
    let length = |bytes: &[u8]| {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        length.max(bytes.len() as u64)
    };
    loop {
        let before = bytes.len();
        match (&mut &*file).take(CHUNK).read_to_end(&mut bytes) {
            Ok(0) => {
                let length = bytes.len() as u64;
                return (bytes, length, Ok(()));
            }
            Ok(_) => {}
            Err(error) => {
                let length = length(&bytes);
                return (bytes, length, Err(error));
            }
        }
        while let Some((_, next)) = frame_at(&bytes, at) {
            (at, is_spoiled) = (next, false);
        }
        is_spoiled |= !may_follow(&bytes[at..], before.saturating_sub(at));
        if is_spoiled && bytes.len() - at > REST_MAX {
            let length = length(&bytes);
            return (bytes, length, Ok(()));
        }
    }
}

/// Whether these bytes may be the beginning of a frame that is not all there. The first ones, so
/// many, were looked at before.
fn may_follow(bytes: &[u8], seen: usize) -> bool {
    if bytes.len() < HEADER {
        return true;
    }
    // JSON has no control characters but between its parts, where claimfs writes none.
    let text = &bytes[seen.max(HEADER).min(bytes.len())..];
    payload_length(bytes).is_some_and(|length| bytes.len() < HEADER + length)
        && text.iter().all(|byte| *byte >= b' ')
}

/// Keeps what is at a path under the first free name `NAME.corrupt.N` too: it stays where it is
/// until something is renamed into its place. A directory, and what cannot have two names, moves.
pub fn set_aside(dir: &Path, name: &str) -> io::Result<()> {
    let from = dir.join(name);
    for number in 0_u64.. {
        let to = dir.join(format!("{name}.corrupt.{number}"));
        if fs::symlink_metadata(&to).is_ok() {
            continue;
        }
        return match fs::hard_link(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(_) => fs::rename(&from, &to),
            Ok(()) => Ok(()),
        };
    }
    Ok(())
}

/// Creates a file for writing, in place of one that may be there under this name.
pub fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        opened => opened,
    }
}
