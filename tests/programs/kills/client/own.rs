//! Changes of what a client holds. Each must answer just what it would answer on any filesystem.

use libc::{EEXIST, EISDIR, ENODATA, ENOENT, ENOTDIR, ENOTEMPTY};
use libc::{O_APPEND, O_CREAT, O_EXCL, O_RDWR, O_TRUNC, O_WRONLY};

use super::{Answer, Client, c, errno, is_claim};
use crate::shared::OWN;
use crate::world::Body;

impl Client {
    /// A directory that one may change: `claims` itself, or one of one's own.
    fn directory(&mut self) -> String {
        let names = self.world.names.keys();
        let own = names.filter(|path| self.world.is_directory(path) && path.len() < 16);
        let mut all: Vec<String> = own.cloned().collect();
        all.extend(["claims".to_owned(), "claims".to_owned()]);
        all.swap_remove(self.dice.below(all.len()))
    }

    pub(super) fn name(&mut self, directory: &str) -> String {
        match (directory, self.held) {
            ("claims", Some(name)) if self.dice.below(4) == 0 => format!("claims/n{name}"),
            ("claims", _) => format!("claims/p{}-{}", self.slot, self.dice.below(OWN)),
            _ => format!("{directory}/{}", ["a", "b", "c"][self.dice.below(3)]),
        }
    }

    /// A name of a file of one's own, if there is one.
    fn some_file(&mut self) -> Option<String> {
        let names = self.world.names.iter();
        let files = names.filter(|(_, node)| matches!(self.world.nodes[node].body, Body::File(_)));
        let files: Vec<&String> = files.map(|(path, _)| path).collect();
        (!files.is_empty()).then(|| files[self.dice.below(files.len())].clone())
    }

    /// A name in a directory, mostly one that is there.
    fn some_name(&mut self, directory: &str) -> String {
        let names = (0..4).map(|_| self.name(directory));
        let names: Vec<String> = names.collect();
        let there = names.iter().find(|path| self.world.at(path).is_some());
        there.unwrap_or(&names[0]).clone()
    }

    pub(super) fn change(&mut self) {
        let dir = self.directory();
        let (path, other) = (self.name(&dir), self.name(&dir));
        let there = self.some_name(&dir);
        match self.dice.below(16) {
            0..5 => {
                let want = if self.world.at(&path).is_some() {
                    EEXIST
                } else {
                    0
                };
                let how = self.dice.below(4);
                let got = self.make(&path, how).err().unwrap_or(0);
                if got != want {
                    let what = format!("create {path}: {}, expected {}", errno(got), errno(want));
                    self.fail(&what);
                }
                if want == 0 {
                    self.is_granted(&path);
                }
                self.verify(&path);
            }
            5 | 6 => self.remove(&there),
            7..10 => self.write(),
            10 => self.link(&other),
            11..14 => {
                let flags = self.dice.below(3) as u32;
                self.rename(&there, &other, flags);
                self.verify(&other);
            }
            14 => self.set_tag(),
            _ => self.verify(&path),
        }
        self.verify(&there);
    }

    /// Takes a name in one of the ways that take nothing but the name.
    pub(super) fn make(&mut self, path: &str, how: usize) -> Answer<()> {
        let (file, target) = (c(path), format!("{} {}", self.session, self.written));
        let to = c(&target);
        let ways = ["create", "mkdir", "symlink", "mknod"];
        let made = self.attempt(&format!("{} {path}", ways[how]), || unsafe {
            i64::from(match how {
                0 => libc::open(file.as_ptr(), O_WRONLY | O_CREAT | O_EXCL, 0o644),
                1 => libc::mkdir(file.as_ptr(), 0o755),
                2 => libc::symlink(to.as_ptr(), file.as_ptr()),
                _ => libc::mknod(file.as_ptr(), libc::S_IFREG | 0o644, 0),
            })
        })?;
        let body = match how {
            1 => Body::Directory,
            2 => Body::Symlink(target),
            _ => Body::File(Vec::new()),
        };
        self.world.insert(path, body);
        if how == 0 {
            self.close(made as i32);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &str) {
        let is_directory = self.world.is_directory(path);
        let rmdir = is_directory != (self.dice.below(8) == 0);
        let want = match (self.world.at(path).is_some(), is_directory, rmdir) {
            // Of what is not there, it is all the same what it is not.
            (false, ..) => ENOENT,
            (_, true, false) => EISDIR,
            (_, false, true) => ENOTDIR,
            (_, true, true) if !self.world.children(path).is_empty() => ENOTEMPTY,
            _ => 0,
        };
        if want == 0 {
            self.is_leaving(path);
        }
        let (file, what) = (c(path), if rmdir { "rmdir" } else { "unlink" });
        self.expect(&format!("{what}({path})"), want, || unsafe {
            i64::from(if rmdir {
                libc::rmdir(file.as_ptr())
            } else {
                libc::unlink(file.as_ptr())
            })
        });
        if want == 0 {
            self.world.remove(path, self.kept_node());
            self.has_left(path);
        }
    }

    /// Writes to a file by its name or by the descriptor that is kept: at the end, or from the
    /// start.
    fn write(&mut self) {
        if self.kept.is_some() && self.dice.below(2) == 0 {
            return self.write_kept();
        }
        let Some(path) = self.some_file() else {
            return;
        };
        let node = self.world.names[&path];
        let long = matches!(&self.world.nodes[&node].body, Body::File(body) if body.len() > 6000);
        let flags = if long || self.dice.below(3) == 0 {
            O_TRUNC
        } else {
            O_APPEND
        };
        let fd = self.open(&path, O_RDWR | flags, 0);
        if flags == O_TRUNC {
            self.world.at_mut(&path).body = Body::File(Vec::new());
        }
        if self.dice.below(4) != 0 {
            self.put(fd, &path, node);
        }
        if self.dice.below(3) == 0 {
            let mode = [0o600, 0o640, 0o755][self.dice.below(3)];
            let what = format!("fchmod({path}, {mode:o})");
            self.expect(&what, 0, || i64::from(unsafe { libc::fchmod(fd, mode) }));
            self.world.at_mut(&path).mode = Some(mode);
        }
        if self.kept.is_none() && flags == O_APPEND {
            self.kept = Some((fd, node));
        } else {
            self.close(fd);
        }
        self.verify(&path);
    }

    fn put(&mut self, fd: i32, path: &str, node: u64) {
        self.written += 1;
        let fill = "x".repeat(self.dice.below(60));
        let line = format!("by {} {} {fill}\n", self.session, self.written);
        let (at, size) = (line.as_ptr().cast(), line.len());
        let what = format!("write({path}, {line:?})");
        let count = self.expect(&what, 0, || unsafe { libc::write(fd, at, size) as i64 });
        self.same("what was written", &count, &(size as i64));
        if let Body::File(body) = &mut self.world.nodes.get_mut(&node).unwrap().body {
            body.extend_from_slice(line.as_bytes());
        }
    }

    fn write_kept(&mut self) {
        let (fd, node) = self.kept.unwrap();
        self.put(fd, "kept", node);
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        let at = &raw mut stat;
        self.expect("fstat(kept)", 0, || {
            i64::from(unsafe { libc::fstat(fd, at) })
        });
        self.same("nlink of kept", &stat.st_nlink, &self.world.links(node));
        let got = self.read_on(fd, "kept");
        self.same(
            "body of kept",
            &Body::File(got),
            &self.world.nodes[&node].body,
        );
        if self.dice.below(4) == 0 {
            self.close_kept();
        }
    }

    pub(super) fn close_kept(&mut self) {
        if let Some((fd, node)) = self.kept.take() {
            self.close(fd);
            if self.world.links(node) == 0 {
                self.world.nodes.remove(&node);
            }
        }
    }

    fn link(&mut self, to: &str) {
        let dir = &to[..to.rfind('/').unwrap()];
        let Some(from) = self
            .some_file()
            .filter(|from| &from[..from.rfind('/').unwrap()] == dir)
        else {
            return;
        };
        let want = if self.world.at(to).is_some() {
            EEXIST
        } else {
            0
        };
        let (old, new) = (c(&from), c(to));
        self.expect(&format!("link({from}, {to})"), want, || unsafe {
            i64::from(libc::link(old.as_ptr(), new.as_ptr()))
        });
        if want == 0 {
            let node = self.world.names[&from];
            self.world.names.insert(to.to_owned(), node);
            self.is_granted(to);
            self.verify(to);
        }
    }

    pub(super) fn call_rename(&mut self, from: &str, to: &str, flags: u32) -> Answer<i64> {
        let (old, new, at) = (c(from), c(to), libc::AT_FDCWD);
        self.attempt(&format!("rename({from}, {to}, {flags})"), || unsafe {
            i64::from(libc::renameat2(at, old.as_ptr(), at, new.as_ptr(), flags))
        })
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, flags: u32) {
        let exchange = flags == libc::RENAME_EXCHANGE;
        let (one, other) = (self.world.names.get(from), self.world.names.get(to));
        let kinds = (self.world.is_directory(from), self.world.is_directory(to));
        let is_same = one == other;
        let want = match (one, other) {
            (None, _) => ENOENT,
            (_, None) if exchange => ENOENT,
            (_, Some(_)) if flags == libc::RENAME_NOREPLACE => EEXIST,
            (_, None) => 0,
            _ if exchange || is_same => 0,
            _ => match kinds {
                (false, true) => EISDIR,
                (true, false) => ENOTDIR,
                (true, true) if !self.world.children(to).is_empty() => ENOTEMPTY,
                _ => 0,
            },
        };
        let moves = want == 0 && !is_same;
        if moves && !exchange {
            self.is_leaving(from);
        }
        let got = self.call_rename(from, to, flags).err().unwrap_or(0);
        if got != want {
            let what = format!("rename({from}, {to}, {flags}): {}", errno(got));
            self.fail(&format!("{what}, expected {}", errno(want)));
        }
        if moves && exchange {
            self.world.exchange(from, to);
            self.is_granted(from);
            self.is_granted(to);
        } else if moves {
            self.world.rename(from, to, self.kept_node());
            self.has_left(from);
            self.is_granted(to);
        }
    }

    fn set_tag(&mut self) {
        let Some(path) = self.some_file() else {
            return;
        };
        let there = self.world.at(&path).unwrap().tag.is_some();
        let (file, key, value) = (c(&path), c"user.k", format!("v{}", self.dice.below(1000)));
        let flags = self.dice.below(4) as i32;
        let (want, what) = match (flags, there) {
            (libc::XATTR_CREATE, true) => (EEXIST, "make"),
            (libc::XATTR_CREATE, false) => (0, "make"),
            (libc::XATTR_REPLACE, false) => (ENODATA, "replace"),
            (3, false) => (ENODATA, "remove"),
            (3, true) => (0, "remove"),
            _ => (0, "set"),
        };
        let (at, size) = (value.as_ptr().cast(), value.len());
        self.expect(&format!("{what} user.k of {path}"), want, || unsafe {
            i64::from(if flags == 3 {
                libc::removexattr(file.as_ptr(), key.as_ptr())
            } else {
                libc::setxattr(file.as_ptr(), key.as_ptr(), at, size, flags)
            })
        });
        if want == 0 {
            self.world.at_mut(&path).tag = (flags != 3).then_some(value);
        }
        self.verify(&path);
    }

    /// Breaks some of one's own claims: by commands in one write, or by an attribute.
    pub(super) fn control(&mut self) {
        let names = self.world.names.keys().filter(|path| is_claim(path));
        let mut names: Vec<String> = names.cloned().collect();
        while names.len() > 2 {
            names.swap_remove(self.dice.below(names.len()));
        }
        self.break_all(&names);
    }

    pub(super) fn break_all(&mut self, names: &[String]) {
        // A file that loses its last name so is lost to every process that has it open.
        self.close_kept();
        let mut commands = String::new();
        for path in names {
            let token = self.token(path, false);
            let name = &path[7..];
            commands += &format!("{{\"ttl\":\"{name}\",\"seconds\":3600}}\n");
            commands += &format!("{{\"break\":\"{name}\",\"token\":{token}}}\n");
        }
        let [path, ..] = names else { return };
        for path in names {
            self.is_leaving(path);
        }
        if names.len() == 1 && !matches!(self.world.at(path).unwrap().body, Body::Symlink(_)) {
            let token = commands.rsplit([':', '}']).nth(1).unwrap();
            let (file, key) = (c(path), c"user.claimfs.break");
            let (at, size) = (token.as_ptr().cast(), token.len());
            self.expect(&format!("break {path} by attribute"), 0, || unsafe {
                i64::from(libc::setxattr(file.as_ptr(), key.as_ptr(), at, size, 0))
            });
        } else {
            let fd = self.open("control", O_WRONLY, 0);
            let (at, size) = (commands.as_ptr().cast(), commands.len());
            let what = format!("write(control, {commands:?})");
            self.expect(&what, 0, || unsafe { libc::write(fd, at, size) as i64 });
            self.close(fd);
        }
        for path in names {
            self.world.remove(path, None);
            self.has_left(path);
            self.verify(path);
        }
    }
}
