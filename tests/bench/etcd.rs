//! etcd as a lock server: a lease, a transaction that creates a key if there is none, and the end
//! of either. It is spoken to by its JSON gateway over one HTTP/1.1 connection that is kept. The
//! gateway translates for gRPC within the same process, so a client of gRPC itself is somewhat
//! faster.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::server::{Server, free_port};

/// `held` and `free` in base64, as the gateway wants keys.
const HELD: &str = "aGVsZA==";
const FREE: &str = "ZnJlZQ==";

pub struct Etcd {
    _server: Server,
    port: u16,
}

impl Etcd {
    /// Starts one with its data below a directory, if it is installed.
    pub fn start(parent: &Path) -> Option<Self> {
        let (port, peers) = (free_port(), free_port());
        let server = Server::start("etcd", parent, |dir: &Path| {
            let (clients, peers) = (
                format!("http://127.0.0.1:{port}"),
                format!("http://127.0.0.1:{peers}"),
            );
            let mut command = Command::new("etcd");
            command.arg("--data-dir").arg(dir.join("data"));
            command.args([
                "--name",
                "bench",
                "--initial-cluster",
                &format!("bench={peers}"),
            ]);
            for what in ["--listen-client-urls", "--advertise-client-urls"] {
                command.args([what, &clients]);
            }
            for what in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
                command.args([what, &peers]);
            }
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command
        })?;
        // It listens before it has a leader.
        server.wait_until(|_| {
            let stream = TcpStream::connect(("127.0.0.1", port));
            stream.is_ok_and(|stream| {
                let body = format!(r#"{{"key":"{HELD}","value":"bWU="}}"#);
                Http::new(stream).post("kv/put", &body).is_some()
            })
        });
        Some(Self {
            _server: server,
            port,
        })
    }

    pub fn client(&self) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut client = Client {
            http: Http::new(stream),
            lease: String::new(),
        };
        client.lease = client.grant();
        client
    }
}

struct Http {
    stream: BufReader<TcpStream>,
}

impl Http {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// The body of the answer, if that is 200.
    fn post(&mut self, path: &str, body: &str) -> Option<String> {
        let mut text = format!("POST /v3/{path} HTTP/1.1\r\nHost: bench\r\n");
        let length = body.len();
        write!(text, "Content-Length: {length}\r\n\r\n{body}").unwrap();
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
        let status = self.line();
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            chunked |= line == "transfer-encoding: chunked";
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).unwrap();
        while chunked {
            let size = usize::from_str_radix(&self.line(), 16).unwrap();
            let mut chunk = vec![0; size];
            self.stream.read_exact(&mut chunk).unwrap();
            self.line();
            chunked = size > 0;
            answer.append(&mut chunk);
        }
        let answer = String::from_utf8(answer).unwrap();
        status.contains(" 200 ").then_some(answer)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

/// A client with a lease that it keeps, as the session of a mutex in etcd's own libraries does.
pub struct Client {
    http: Http,
    lease: String,
}

impl Client {
    fn grant(&mut self) -> String {
        let answer = self.http.post("lease/grant", r#"{"TTL":600}"#).unwrap();
        let (_, id) = answer.split_once(r#""ID":""#).unwrap();
        id.split_once('"').unwrap().0.to_owned()
    }

    /// Whether there was no such key.
    fn create(&mut self, key: &str, lease: &str) -> bool {
        let absent = format!(
            r#"{{"key":"{key}","target":"CREATE","result":"EQUAL","create_revision":"0"}}"#
        );
        let put =
            format!(r#"{{"request_put":{{"key":"{key}","value":"bWU=","lease":"{lease}"}}}}"#);
        let body = format!(r#"{{"compare":[{absent}],"success":[{put}]}}"#);
        let answer = self.http.post("kv/txn", &body).unwrap();
        answer.contains(r#""succeeded":true"#)
    }

    pub fn contended(&mut self) {
        let lease = self.lease.clone();
        assert!(!self.create(HELD, &lease));
    }

    /// Takes and gives back under the lease that it has.
    pub fn pair(&mut self) {
        let lease = self.lease.clone();
        assert!(self.create(FREE, &lease));
        let body = format!(r#"{{"key":"{FREE}"}}"#);
        let answer = self.http.post("kv/deleterange", &body).unwrap();
        assert!(answer.contains(r#""deleted":"1""#), "{answer}");
    }

    /// The same with a lease for this alone, whose end deletes the key.
    pub fn pair_with_lease(&mut self) {
        let lease = self.grant();
        assert!(self.create(FREE, &lease));
        let body = format!(r#"{{"ID":"{lease}"}}"#);
        self.http.post("lease/revoke", &body).unwrap();
    }
}
