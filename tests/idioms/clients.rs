//! The clients, a test for each: how each is run, and how it says that somebody else has the lock.

use crate::support::Mount;

/// The word for `tests/programs/lock_client.rs`.
pub const LOCK_CLIENT: &str = "lock_client";

/// A client: what is run for it is `words` and the role.
#[derive(Debug)]
pub struct Client {
    pub name: &'static str,
    /// A command that succeeds where it is installed.
    pub probe: &'static [&'static str],
    pub words: &'static [&'static str],
    pub variables: &'static [(&'static str, &'static str)],
    /// The shell lines of `posix.sh`.
    pub take: &'static str,
    pub give: &'static str,
    /// The entry that is the lock.
    pub entry: &'static str,
    /// How it says that somebody else has it: an exit code, and what it writes: nothing at all if
    /// that is empty.
    pub busy: (i32, &'static str),
    /// The options that the mount needs.
    pub options: &'static [&'static str],
}

const BLANK: Client = Client {
    name: "",
    probe: &["true"],
    words: &[],
    variables: &[],
    take: "",
    give: "rm -f x",
    entry: "x",
    busy: (1, ""),
    options: &[],
};

macro_rules! beside {
    ($script:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/idioms/", $script)
    };
}

macro_rules! installed {
    ($path:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/", $path)
    };
}

/// `set -C` of a shell: it runs `posix.sh`.
macro_rules! noclobber {
    ([$($shell:literal),+], $code:literal, $says:literal) => {
        Client {
            name: concat!("noclobber of ", $($shell, " "),+),
            probe: &[$($shell),+, "-c", ""],
            words: &[$($shell),+, beside!("posix.sh")],
            take: "set -C; echo $$ > x",
            busy: ($code, $says),
            ..BLANK
        }
    };
}

/// A line of `sh`.
const SH: Client = Client {
    words: &["sh", beside!("posix.sh")],
    ..BLANK
};

/// A setgid program: to the kernel a process is an other as soon as its saved group is not the
/// mounter's.
const SETGID: Client = Client {
    options: &["--allow-other"],
    ..SH
};

const DOTLOCKFILE: Client = Client {
    probe: &["sh", "-c", "command -v dotlockfile"],
    give: "dotlockfile -u x",
    busy: (4, ""),
    options: &["--allow-other", "--dotfiles"],
    ..SETGID
};

macro_rules! python {
    ($library:literal, $module:literal, $entry:literal, $says:literal) => {
        Client {
            name: concat!("python ", $library),
            probe: &[
                installed!("venv/bin/python"),
                "-c",
                concat!("import ", $module),
            ],
            words: &[
                installed!("venv/bin/python"),
                beside!("python.py"),
                $library,
            ],
            entry: $entry,
            busy: (1, $says),
            ..BLANK
        }
    };
}

macro_rules! node {
    ($library:literal, $module:literal, $entry:literal, $says:literal) => {
        Client {
            name: concat!("node ", $library),
            probe: &["node", "-e", concat!("require('", $module, "')")],
            words: &["node", beside!("node.js"), $library],
            variables: &[("NODE_PATH", installed!("usr/share/nodejs"))],
            entry: $entry,
            busy: (1, $says),
            ..BLANK
        }
    };
}

macro_rules! perl {
    ($library:literal, $module:literal, $entry:literal, $says:literal) => {
        Client {
            name: concat!("perl ", $library),
            probe: &["perl", concat!("-M", $module), "-e", ""],
            words: &["perl", beside!("perl.pl"), $library],
            variables: &[("PERL5LIB", installed!("usr/share/perl5"))],
            entry: $entry,
            busy: (1, $says),
            ..BLANK
        }
    };
}

/// Each client is a constant in a list, and a test of the same name.
macro_rules! clients {
    ($($test:ident: $client:expr;)+) => {
        pub const ALL: &[Client] = &[$($client),+];
        $(
            #[test]
            fn $test() {
                crate::stages::check(&$client);
            }
        )+
    };
}

clients! {
    bash: noclobber!(["bash"], 1, "x: cannot overwrite existing file");
    dash: noclobber!(["dash"], 2, "cannot create x: File exists");
    busybox: noclobber!(["busybox", "sh"], 1, "can't create x: File exists");
    zsh: noclobber!(["zsh"], 1, "file exists: x");
    ksh: noclobber!(["ksh"], 1, "x: file already exists");
    mksh: noclobber!(["mksh"], 1, "x: create: File exists");
    tcsh: Client {
        name: "noclobber of tcsh",
        probe: &["tcsh", "-fc", ""],
        words: &["tcsh", "-f", beside!("tcsh.csh")],
        busy: (1, "x: File exists."),
        ..BLANK
    };
    mkdir: Client {
        name: "mkdir",
        take: "mkdir x",
        give: "rmdir x",
        busy: (1, "mkdir: cannot create directory 'x': File exists"),
        ..SH
    };
    ln: Client {
        name: "ln",
        take: "echo $$ > t.$$ && ln t.$$ x; s=$?; rm t.$$; return $s",
        busy: (1, "ln: failed to create hard link 'x': File exists"),
        ..SH
    };
    ln_s: Client {
        name: "ln -s",
        take: "ln -s pid:$$ x",
        busy: (1, "ln: failed to create symbolic link 'x': File exists"),
        ..SH
    };
    // mv -n says nothing; that the source is still there says it.
    mv_n: Client {
        name: "mv -n",
        take: "echo $$ > t.$$ && mv -n t.$$ x && ! [ -e t.$$ ] || { rm t.$$; return 1; }",
        ..SH
    };
    mktemp_ln: Client {
        name: "mktemp, ln",
        take: "t=$(mktemp t.XXXXXX) && ln $t x; s=$?; rm $t; return $s",
        busy: (1, "ln: failed to create hard link 'x': File exists"),
        ..SH
    };
    mktemp_mv_n: Client {
        name: "mktemp, mv -n",
        take: "t=$(mktemp t.XXXXXX) && mv -n $t x && ! [ -e $t ] || { rm $t; return 1; }",
        ..SH
    };
    dd: Client {
        name: "dd conv=excl",
        take: "echo $$ | dd of=x conv=excl status=none",
        busy: (1, "dd: failed to open 'x': File exists"),
        ..SH
    };
    procmail: Client {
        name: "lockfile of procmail",
        probe: &["sh", "-c", "command -v lockfile"],
        take: "lockfile -r 0 x",
        busy: (73, "lockfile: Sorry, giving up on \"x\""),
        ..SETGID
    };
    dotlockfile: Client {
        name: "dotlockfile",
        take: "dotlockfile -l -r 0 x",
        ..DOTLOCKFILE
    };
    dotlockfile_p: Client {
        name: "dotlockfile -p",
        take: "dotlockfile -l -p -r 0 x",
        ..DOTLOCKFILE
    };
    shlock: Client {
        name: "shlock of INN",
        probe: &["test", "-x", installed!("usr/lib/news/bin/shlock")],
        variables: &[
            ("SHLOCK", installed!("usr/lib/news/bin/shlock")),
            ("LD_LIBRARY_PATH", installed!("usr/lib/news")),
        ],
        take: "\"$SHLOCK\" -p $$ -f x",
        ..SH
    };
    python_open: python!("open", "os", "x", "FileExistsError: [Errno 17] File exists: 'x'");
    filelock_soft: python!("SoftFileLock", "filelock", "x", "filelock._error.Timeout");
    filelock_lease: python!("SoftFileLease", "filelock", "x", "filelock._error.Timeout");
    flufl_lock: python!("flufl.lock", "flufl.lock", "x", "TimeOutError: Could not acquire the lock");
    lockfile_link: python!("LinkLockFile", "lockfile", "x.lock", "lockfile.AlreadyLocked: x is already locked");
    lockfile_mkdir: python!("MkdirLockFile", "lockfile", "x.lock", "lockfile.AlreadyLocked: x is already locked");
    lockfile_symlink: python!("SymlinkLockFile", "lockfile", "x.lock", "lockfile.AlreadyLocked: x is already locked");
    lockfile_pid: python!("PIDLockFile", "lockfile", "x", "lockfile.AlreadyLocked: x is already locked");
    node_open: node!("open", "fs", "x", "code: 'EEXIST'");
    node_mkdir: node!("mkdir", "fs", "x", "code: 'EEXIST'");
    proper_lockfile: node!("proper-lockfile", "proper-lockfile", "x.lock", "code: 'ELOCKED'");
    rust_create_new: Client {
        name: "rust create_new",
        words: &[LOCK_CLIENT],
        busy: (1, "kind: AlreadyExists"),
        ..BLANK
    };
    perl_sysopen: perl!("sysopen", "Fcntl", "x", "x: File exists");
    lockfile_simple: perl!("LockFile::Simple", "LockFile::Simple", "x.lock", "already locked");
    git: Client {
        name: "git update-ref",
        probe: &["git", "--version"],
        words: &["sh", beside!("git.sh")],
        entry: "x.lock",
        busy: (128, "x.lock': File exists."),
        ..BLANK
    };
    mercurial: Client {
        name: "hg",
        probe: &["hg", "--version"],
        words: &["hg", "--config", concat!("extensions.idiom=", beside!("mercurial.py")), "idiom"],
        variables: &[("HGRCPATH", ""), ("HGPLAIN", "1")],
        entry: "lock",
        busy: (255, "lock held by"),
        ..BLANK
    };
    emacs: Client {
        name: "emacs",
        probe: &["emacs", "--version"],
        words: &["emacs", "-Q", "--batch", "-l", beside!("emacs.el")],
        entry: ".#x",
        busy: (255, "Cannot resolve lock conflict in batch mode"),
        options: &["--dotfiles"],
        ..BLANK
    };
}

#[test]
fn mktemp_makes_names_of_its_own() {
    let Some(mount) = Mount::new() else { return };
    let out = mount.run("f=$(mktemp -p claims) && d=$(mktemp -d -p claims 'a b,XXXXXX') && ls -d \"$f\" \"$d\" && rm \"$f\" && rmdir \"$d\"");
    assert_eq!(out.lines().count(), 2);
}
