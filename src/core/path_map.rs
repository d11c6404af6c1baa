//! The map from the paths that a sandbox sees to those that all others see.
//!
//! Promises: a map that does not parse is refused as a whole, so that no path is left untranslated
//! by a typing error.
//!
//! Does not know: where the map comes from, or whether a path exists.

use super::printable;

/// `SEEN=SHARED[:SEEN=SHARED…]`, absolute paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathMap(Vec<(Vec<u8>, Vec<u8>)>);

impl PathMap {
    /// Reads a map; an empty text is an empty map. The error is a sentence about one entry.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        if text.is_empty() {
            return Ok(Self(pairs));
        }
        for entry in text.split(|byte| *byte == b':') {
            let shown = printable(&String::from_utf8_lossy(entry));
            let at = entry.iter().position(|byte| *byte == b'=');
            let Some((seen, shared)) = at.and_then(|at| Some((&entry[..at], entry.get(at + 1..)?)))
            else {
                return Err(format!("'{shown}' is not SEEN=SHARED"));
            };
            let (Some(seen), Some(shared)) = (absolute(seen), absolute(shared)) else {
                return Err(format!(
                    "'{shown}': both are absolute paths, without '.' and '..'"
                ));
            };
            if pairs.iter().any(|(there, _)| *there == seen) {
                return Err(format!("'{shown}': that path is there twice"));
            }
            pairs.push((seen, shared));
        }
        Ok(Self(pairs))
    }

    /// The shared path of an absolute path: by the longest SEEN that it is at or below. `None` if
    /// there is none.
    pub fn translate(&self, path: &[u8]) -> Option<Vec<u8>> {
        let below = |seen: &[u8]| -> Option<&[u8]> {
            let rest = path.strip_prefix(seen)?;
            (rest.is_empty() || rest[0] == b'/').then_some(rest)
        };
        let found = self.0.iter().filter_map(|(seen, shared)| {
            let rest = below(seen)?;
            Some((seen.len(), [shared.as_slice(), rest].concat()))
        });
        let (_, mut path) = found.max_by_key(|(length, _)| *length)?;
        // The whole root: `/` has a slash at its end, and no other path has one.
        if path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Some(path)
    }
}

/// An absolute path without slashes at its end, and with one between its components: `/` becomes
/// the empty path. `None` for any other.
fn absolute(path: &[u8]) -> Option<Vec<u8>> {
    if !path.starts_with(b"/") {
        return None;
    }
    let mut normal = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" => {}
            b"." | b".." => return None,
            part => {
                normal.push(b'/');
                normal.extend_from_slice(part);
            }
        }
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    use super::PathMap;

    #[test]
    fn the_longest_part_that_is_above_by_whole_components_counts() {
        let map = PathMap::parse(b"/work=/home/me/app:/work/deep/=/data//x:/b=/c=d").unwrap();
        let translate = |path: &str| {
            let path = map.translate(path.as_bytes());
            path.map(|path| String::from_utf8(path).unwrap())
        };
        let some = |path: &str| Some(path.to_owned());
        assert_eq!(translate("/work/src"), some("/home/me/app/src"));
        assert_eq!(translate("/work/deep/x"), some("/data/x/x"));
        assert_eq!(translate("/work/deeper"), some("/home/me/app/deeper"));
        assert_eq!(translate("/work"), some("/home/me/app"));
        assert_eq!(translate("/works"), None);
        assert_eq!(translate("/b/x"), some("/c=d/x"));
        let all = PathMap::parse(b"/=/host").unwrap();
        assert_eq!(all.translate(b"/x"), Some(b"/host/x".to_vec()));
        assert_eq!(all.translate(b"/"), Some(b"/host".to_vec()));
        let root = PathMap::parse(b"/host=/").unwrap();
        assert_eq!(root.translate(b"/host/x"), Some(b"/x".to_vec()));
        assert_eq!(root.translate(b"/host"), Some(b"/".to_vec()));
    }

    #[test]
    fn a_map_that_does_not_parse_is_refused_as_a_whole() {
        assert_eq!(PathMap::parse(b""), Ok(PathMap::default()));
        for text in [
            "x",
            "/a",
            ":",
            "/a=/b:",
            "=/b",
            "/a=",
            "a=/b",
            "/a=b",
            "/a/..=/b",
            "/a=/b:/a/=/c",
        ] {
            assert!(PathMap::parse(text.as_bytes()).is_err(), "{text}");
        }
        let error = PathMap::parse(b"/a=/b:\x1b[2J").unwrap_err();
        assert_eq!(error, "'\\u{1b}[2J' is not SEEN=SHARED");
    }
}
