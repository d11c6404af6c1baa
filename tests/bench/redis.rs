//! Redis as a lock server, spoken to with nothing in between: `SET key value NX PX 30000` and `DEL
//! key` over a socket.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::server::{Server, free_port};

pub struct Redis {
    server: Server,
    port: u16,
}

impl Redis {
    /// Starts one with a directory of its own, if it is installed. It writes nothing down, or its
    /// log once a second.
    pub fn start(append: bool) -> Option<Self> {
        let port = free_port();
        let server = Server::start("redis", &std::env::temp_dir(), |dir: &Path| {
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
            command.arg("--unixsocket").arg(dir.join("socket"));
            command.arg("--dir").arg(dir);
            command.args([
                "--save",
                "",
                "--appendonly",
                if append { "yes" } else { "no" },
            ]);
            command.args(["--appendfsync", "everysec"]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command
        })?;
        let redis = Self { server, port };
        redis.server.wait_until(|dir| {
            let socket = UnixStream::connect(dir.join("socket"));
            socket.is_ok_and(|mut socket| {
                request(&["SET", "held", "another"], "+OK\r\n").run(&mut socket);
                true
            })
        });
        Some(redis)
    }

    pub fn unix(&self) -> UnixStream {
        UnixStream::connect(self.server.dir.join("socket")).unwrap()
    }

    pub fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

/// A request as it goes over the wire, and the only right answer.
struct Request {
    bytes: Vec<u8>,
    answer: &'static str,
}

fn request(words: &[&str], answer: &'static str) -> Request {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        write!(text, "${}\r\n{word}\r\n", word.len()).unwrap();
    }
    let bytes = text.into_bytes();
    Request { bytes, answer }
}

impl Request {
    fn run(&self, stream: &mut (impl Read + Write)) {
        stream.write_all(&self.bytes).unwrap();
        let mut answer = [0; 16];
        let answer = &mut answer[..self.answer.len()];
        stream.read_exact(answer).unwrap();
        assert_eq!(answer, self.answer.as_bytes());
    }
}

/// The operations of a client: one is refused, the other takes a lock and gives it back.
pub struct Client<S> {
    stream: S,
    refused: Request,
    taken: Request,
    deleted: Request,
}

impl<S: Read + Write> Client<S> {
    pub fn new(stream: S) -> Self {
        let set = |key, answer| request(&["SET", key, "me", "NX", "PX", "30000"], answer);
        Self {
            stream,
            refused: set("held", "$-1\r\n"),
            taken: set("free", "+OK\r\n"),
            deleted: request(&["DEL", "free"], ":1\r\n"),
        }
    }

    pub fn contended(&mut self) {
        self.refused.run(&mut self.stream);
    }

    pub fn pair(&mut self) {
        self.taken.run(&mut self.stream);
        self.deleted.run(&mut self.stream);
    }
}
