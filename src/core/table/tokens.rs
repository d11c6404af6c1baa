//! The names of all leases by their tokens: in the order of their grants.
//!
//! Promises: the claims alone are found without a look at the reservations.
//!
//! Does not know: who holds a lease.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::core::{Name, Token};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    claims: BTreeMap<Token, Name>,
    paths: BTreeMap<Token, Name>,
}

impl Tokens {
    pub(super) fn get(&self, token: Token) -> Option<&Name> {
        self.claims.get(&token).or_else(|| self.paths.get(&token))
    }

    pub(super) fn len(&self) -> usize {
        self.claims.len() + self.paths.len()
    }

    pub(super) fn insert(&mut self, token: Token, name: Name) {
        let names = if name.is_path() {
            &mut self.paths
        } else {
            &mut self.claims
        };
        names.insert(token, name);
    }

    pub(super) fn remove(&mut self, token: Token) {
        if self.claims.remove(&token).is_none() {
            self.paths.remove(&token);
        }
    }

    pub(super) fn clear(&mut self) {
        self.claims.clear();
        self.paths.clear();
    }

    /// The newest token.
    pub(super) fn newest(&self) -> Option<Token> {
        let claim = self.claims.last_key_value().map(|(token, _)| *token);
        claim.max(self.paths.last_key_value().map(|(token, _)| *token))
    }

    /// The names that are paths.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Name> {
        self.paths.values()
    }

    /// The claims after a token.
    pub(super) fn claims_after(&self, after: Token) -> impl Iterator<Item = (Token, &Name)> {
        rest(&self.claims, after)
    }

    /// All names after a token.
    pub(super) fn after(&self, after: Token) -> impl Iterator<Item = (Token, &Name)> {
        let mut claims = rest(&self.claims, after).peekable();
        let mut paths = rest(&self.paths, after).peekable();
        std::iter::from_fn(move || match (claims.peek(), paths.peek()) {
            (Some((claim, _)), Some((path, _))) if path < claim => paths.next(),
            (Some(_), _) => claims.next(),
            (None, _) => paths.next(),
        })
    }
}

fn rest(names: &BTreeMap<Token, Name>, after: Token) -> impl Iterator<Item = (Token, &Name)> {
    let rest = names.range((Bound::Excluded(after), Bound::Unbounded));
    rest.map(|(token, name)| (*token, name))
}
