//! A file with a new text: in one step, with its mode, and with a backup of what it was.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::cli::Failure;

/// The effect on the file.
#[derive(Debug)]
pub(super) enum Done {
    /// It had that text.
    Same,
    /// It was not there.
    New,
    /// It was changed; what it was is in this file.
    Changed(PathBuf),
    /// Nothing of it was left.
    Gone(PathBuf),
}

/// Replaces the text of a file by what `change` makes of it: no text if there is no file, and no
/// file if there is no text. A symlink stays, and the file that it leads to is replaced. A new file
/// has this mode, an old one keeps its own.
pub(super) fn file(
    path: &Path,
    mode: u32,
    change: impl FnOnce(Option<&str>) -> Result<Option<String>, Failure>,
) -> Result<Done, Failure> {
    let failed = |error: io::Error| Failure::unavailable(format!("{}: {error}", path.display()));
    let in_it = |failure: Failure| Failure {
        text: format!("{}: {}", path.display(), failure.text),
        ..failure
    };
    if !path.is_symlink() && !path.exists() {
        let Some(text) = change(None).map_err(in_it)? else {
            return Ok(Done::Same);
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        put(path, &text, mode).map_err(failed)?;
        return Ok(Done::New);
    }
    let real = fs::canonicalize(path).map_err(failed)?;
    let old = fs::read(&real).map_err(failed)?;
    let old = String::from_utf8(old)
        .map_err(|_| in_it(Failure::usage("not UTF-8, and left as it is")))?;
    let new = change(Some(&old)).map_err(in_it)?;
    if new.as_ref() == Some(&old) {
        return Ok(Done::Same);
    }
    let mode = fs::metadata(&real).map_err(failed)?.permissions().mode() & 0o7777;
    let backup = backup(&real, &old, mode).map_err(failed)?;
    if let Some(text) = new {
        put(&real, &text, mode).map_err(failed)?;
        Ok(Done::Changed(backup))
    } else {
        fs::remove_file(&real).map_err(failed)?;
        Ok(Done::Gone(backup))
    }
}

/// Writes a file in one step: a reader sees the old one or the new one.
fn put(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".claimfs-{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = create(&temporary, text, mode).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        _ = fs::remove_file(&temporary);
    }
    written
}

/// A copy of the old text in a file of its own, which replaces no older copy.
fn backup(path: &Path, text: &str, mode: u32) -> io::Result<PathBuf> {
    let mut number = 1_u32;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(".before-claimfs");
        if number > 1 {
            name.push(format!(".{number}"));
        }
        let name = PathBuf::from(name);
        match create(&name, text, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => {
                number += 1;
            }
            result => return result.map(|()| name),
        }
    }
}

fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}
