//! The model that a client compares the mount with: its claims, as far as it was told.

use std::collections::{BTreeMap, HashMap};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    File(Vec<u8>),
    Directory,
    Symlink(String),
}

#[derive(Clone, Debug)]
pub struct Node {
    pub body: Body,
    pub mode: Option<u32>,
    pub tag: Option<String>,
}

/// Paths from the mount on, and what they are names of.
#[derive(Default)]
pub struct World {
    pub names: BTreeMap<String, u64>,
    pub nodes: HashMap<u64, Node>,
    newest: u64,
}

impl World {
    pub fn at(&self, path: &str) -> Option<&Node> {
        self.nodes.get(self.names.get(path)?)
    }

    pub fn at_mut(&mut self, path: &str) -> &mut Node {
        self.nodes.get_mut(&self.names[path]).unwrap()
    }

    pub fn is_directory(&self, path: &str) -> bool {
        self.at(path)
            .is_some_and(|node| node.body == Body::Directory)
    }

    pub fn insert(&mut self, path: &str, body: Body) {
        self.newest += 1;
        let (mode, tag) = (None, None);
        self.nodes.insert(self.newest, Node { body, mode, tag });
        self.names.insert(path.to_owned(), self.newest);
    }

    /// The paths in a directory, at any depth.
    pub fn below(&self, path: &str) -> Vec<String> {
        let prefix = format!("{path}/");
        let below = self.names.range(prefix.clone()..);
        let below = below.take_while(|(name, _)| name.starts_with(&prefix));
        below.map(|(name, _)| name.clone()).collect()
    }

    /// The paths in a directory.
    pub fn children(&self, path: &str) -> Vec<String> {
        let rest = |name: &String| name[path.len() + 1..].to_owned();
        let names = self.below(path).iter().map(rest).collect::<Vec<_>>();
        names.into_iter().filter(|n| !n.contains('/')).collect()
    }

    /// A name is gone, with all that is below it; `kept` is open still.
    pub fn remove(&mut self, path: &str, kept: Option<u64>) {
        for name in self.below(path).into_iter().chain([path.to_owned()]) {
            self.names.remove(&name);
        }
        let names = &self.names;
        self.nodes
            .retain(|node, _| kept == Some(*node) || names.values().any(|named| named == node));
    }

    pub fn rename(&mut self, from: &str, to: &str, kept: Option<u64>) {
        self.remove(to, kept);
        for name in self.below(from).into_iter().chain([from.to_owned()]) {
            let node = self.names.remove(&name).unwrap();
            self.names
                .insert(format!("{to}{}", &name[from.len()..]), node);
        }
    }

    pub fn exchange(&mut self, one: &str, other: &str) {
        let mut names = Vec::new();
        for (from, to) in [(one, other), (other, one)] {
            for name in self.below(from).into_iter().chain([from.to_owned()]) {
                names.push((format!("{to}{}", &name[from.len()..]), self.names[&name]));
            }
        }
        // The one need not have the children of the other.
        for path in [one, other] {
            for name in self.below(path) {
                self.names.remove(&name);
            }
        }
        self.names.extend(names);
    }

    pub fn links(&self, node: u64) -> u64 {
        self.names.values().filter(|named| **named == node).count() as u64
    }

    /// The expected `st_nlink`.
    pub fn nlink(&self, path: &str) -> u64 {
        if !self.is_directory(path) {
            return self.links(self.names[path]);
        }
        let children = self.children(path);
        let is_directory = |name: &&String| self.is_directory(&format!("{path}/{name}"));
        2 + children.iter().filter(is_directory).count() as u64
    }
}
