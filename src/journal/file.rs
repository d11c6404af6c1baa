//! The files of a state directory: opening, bounded reading, setting aside.
//!
//! Promises: nothing here waits for another process or follows a symlink. The memory that a read
//! takes is bounded by the whole frames in a file and by the length that the next one states, not
//! by the file's.
//!
//! Does not know: the meaning of a payload.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::frame::{ENTRY, ENTRY_MAX, HEADER, SNAPSHOT, frame_at, is_begun, payload_length};
use crate::core::content::INSIDE_MAX;
use crate::sys::ids::effective_uid;

/// How much of a file is read at once, in bytes.
const CHUNK: u64 = 1 << 20;

/// Read at most this many bytes after the last whole frame once no frame can follow.
const REST_MAX: usize = 16 << 20;

/// So many zeros in a snapshot are a hole in the file: nobody may write as many into a claim.
const HOLE: usize = 4 * INSIDE_MAX;

/// Why a file is not used.
#[derive(Debug)]
pub(super) enum Unfit {
    /// The file does not belong there, for this reason. It may be set aside.
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
pub(super) fn open(path: &Path, for_writing: bool) -> Result<Option<File>, Unfit> {
    // Check before opening: opening a device may have effects.
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

/// Reads the frames of a file and the bytes after them: all of these, or only the beginning if no
/// frame can follow. Also returns the length of the file in bytes.
pub(super) fn load(file: &File) -> (Vec<u8>, u64, io::Result<()>) {
    let (mut bytes, mut at) = (Vec::new(), 0);
    let mut is_spoiled = false;
    // The number of bytes of an incomplete frame after which it is looked at as a whole.
    let mut glance = REST_MAX;
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
            (at, is_spoiled, glance) = (next, false, REST_MAX);
        }
        let rest = &bytes[at..];
        is_spoiled |= !may_follow(rest, before.saturating_sub(at));
        if rest.len() > glance {
            glance = 2 * rest.len();
            is_spoiled |= !may_be_whole(rest);
        }
        if is_spoiled && rest.len() > REST_MAX {
            let length = length(&bytes);
            return (bytes, length, Ok(()));
        }
    }
}

/// True if these bytes may be the beginning of an incomplete frame. The first `seen` bytes were
/// checked before.
fn may_follow(bytes: &[u8], seen: usize) -> bool {
    let Some(first) = bytes.get(HEADER) else {
        return true;
    };
    let Some(length) = payload_length(bytes).filter(|length| bytes.len() < HEADER + length) else {
        return false;
    };
    let new = &bytes[seen.max(HEADER).min(bytes.len())..];
    match *first {
        ENTRY => length <= ENTRY_MAX,
        SNAPSHOT => {
            let newest = bytes.len().checked_sub(HOLE);
            newest.is_none_or(|from| bytes[from..].iter().any(|byte| *byte != 0))
        }
        // JSON allows control characters only between its tokens, and claimfs writes none there.
        _ => new.iter().all(|byte| *byte >= b' '),
    }
}

/// True if these bytes, of which there are many, may be the beginning of an incomplete frame.
fn may_be_whole(bytes: &[u8]) -> bool {
    let (Some(length), Some(payload)) = (payload_length(bytes), bytes.get(HEADER..)) else {
        return false;
    };
    payload.first() != Some(&ENTRY) || is_begun(payload, length)
}

/// Links a file to the first free name `NAME.corrupt.N`. It also keeps its own name until another
/// file is renamed over that. A directory, or a file that cannot have two names, is moved.
pub(super) fn set_aside(dir: &Path, name: &str) -> io::Result<()> {
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

/// Creates a file for writing and replaces one of this name.
pub(super) fn create(path: &Path) -> io::Result<File> {
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
