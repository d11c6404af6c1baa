//! A lock client in Rust, for `tests/idioms`: `lock_client hold|try|wait` takes the lock `x` in its
//! working directory.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![allow(missing_docs, clippy::too_many_lines)]

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::thread::sleep;
use std::time::Duration;
use std::{env, process};

fn main() {
    let take = || File::create_new("x");
    let give = || fs::remove_file("x").unwrap();
    let line = || io::stdin().read_line(&mut String::new()).unwrap();
    match env::args().nth(1).as_deref() {
        Some("hold") => {
            drop(take().unwrap());
            println!("held");
            line();
            give();
            println!("released");
            // The holder lives on, so that it is the release that frees the name.
            line();
        }
        Some("try") => match take() {
            Ok(_) => give(),
            Err(error) => {
                eprintln!("{error:?}");
                process::exit(1);
            }
        },
        Some("wait") => {
            assert_eq!(take().unwrap_err().kind(), ErrorKind::AlreadyExists);
            println!("busy");
            while let Err(error) = take() {
                assert_eq!(error.kind(), ErrorKind::AlreadyExists);
                sleep(Duration::from_millis(10));
            }
            println!("got");
            give();
        }
        role => panic!("unexpected role: {role:?}"),
    }
}
