//! The `claimfs` command: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    claimfs::cli::main()
}
