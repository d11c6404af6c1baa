//! `journal_writer DIR` reads the journal in DIR and writes it from the start, as a new server
//! does. `journal_writer DIR settled` goes on with it, as the next server of a mount does, and
//! answers. Tests interrupt it at each system call.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![allow(missing_docs, clippy::too_many_lines)]

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use claimfs::handoff::Handoff;
use claimfs::journal::{self, Disk, Log};
use claimfs::process::Boot;

fn main() -> ExitCode {
    let dir = PathBuf::from(env::args_os().nth(1).unwrap());
    // As `suite/lifecycle/journal.rs` writes it.
    let boot = Boot {
        id: "this-boot".into(),
        pidns: 7,
    };
    let recovered = journal::read(&dir, &boot, 99, false).unwrap();
    if env::args_os().nth(2).is_none() {
        let written = Disk::begin(&dir, boot, &recovered, &Handoff::new("another"));
        return ExitCode::from(u8::from(written.is_err()));
    }
    let handoff = recovered.handoff.clone();
    let Ok(mut disk) = Disk::begin(&dir, boot, &recovered, &handoff) else {
        return ExitCode::FAILURE;
    };
    disk.settled();
    disk.applied(&recovered.table, &mut || handoff.clone());
    ExitCode::SUCCESS
}
