//! File names from strangers, made safe.
//!
//! A torrent's path is a list of names. Each becomes one component that cannot climb (`..`), cannot hide a separator
//! or a NUL, cannot turn the reading direction of a name (Unicode's bidirectional controls) and is not longer than
//! file systems take. Names that are fine stay exactly as they are, so that a folder which was shared is found again.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::metainfo::File;

/// The longest component, in bytes; common file systems end at 255, and a suffix may follow.
const MAX_COMPONENT: usize = 240;
/// The most folders inside each other.
const MAX_DEPTH: usize = 100;
/// The longest whole path, in bytes, well below the 4096 that Linux takes.
const MAX_PATH: usize = 3000;

/// Names that Windows keeps for devices, with or without an extension.
#[cfg(windows)]
const RESERVED: [&str; 22] = [
    "CON", "PRN", "AUX", "NUL", "COM1", "COM2", "COM3", "COM4", "COM5", "COM6", "COM7", "COM8", "COM9", "LPT1", "LPT2",
    "LPT3", "LPT4", "LPT5", "LPT6", "LPT7", "LPT8", "LPT9",
];

/// One safe path component. Bytes that are not UTF-8 become `_`, and so do separators and control characters;
/// nothing at all and the names `.` and `..` become `_`.
pub(crate) fn sanitise(name: &[u8]) -> String {
    let mut safe = String::new();
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            let c = if is_harmless(c) { c } else { '_' };
            if safe.len() + c.len_utf8() > MAX_COMPONENT {
                break;
            }
            safe.push(c);
        }
        if !chunk.invalid().is_empty() && safe.len() < MAX_COMPONENT {
            safe.push('_');
        }
    }
    if matches!(safe.as_str(), "" | "." | "..") {
        return "_".into();
    }
    #[cfg(windows)]
    {
        let kept = safe.trim_end_matches(['.', ' ']).len();
        safe.truncate(kept);
        let stem = safe.split('.').next().unwrap_or_default().to_ascii_uppercase();
        if safe.is_empty() || RESERVED.contains(&stem.as_str()) {
            safe.insert(0, '_');
        }
    }
    safe
}

fn is_harmless(c: char) -> bool {
    let bidirectional = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let separator = matches!(c, '/' | '\\');
    let windows = cfg!(windows) && matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*');
    !(c.is_control() || bidirectional || separator || windows)
}

/// The path of a file in the folder `name`; `None` when it is too deep or too long to exist.
pub(crate) fn join(name: &str, parts: &[&[u8]]) -> Option<PathBuf> {
    if parts.len() > MAX_DEPTH {
        return None;
    }
    let mut path = PathBuf::from(name);
    for part in parts {
        path.push(sanitise(part));
    }
    (path.as_os_str().len() <= MAX_PATH).then_some(path)
}

/// Gives files that ended up with the same path, or with a path that another file needs as a folder, names of their
/// own: `name.1`, `name.2`. Pad files never reach the disk and are left alone.
///
/// Time and memory stay in proportion to the paths' bytes, whatever names a torrent picks.
pub(crate) fn separate(files: &mut [File]) {
    // In sorted keys all that lies in a folder stands right after the folder's own key.
    let mut keys: Vec<Vec<u8>> = files
        .iter()
        .filter(|file| !file.pad)
        .map(|file| key(&file.path))
        .collect();
    keys.sort_unstable();
    let is_folder = |name: &[u8]| {
        let inside = [name, &[0]].concat();
        keys.get(keys.partition_point(|key| *key < inside))
            .is_some_and(|key| key.starts_with(&inside))
    };
    let mut taken: HashSet<Vec<u8>> = HashSet::with_capacity(keys.len());
    let mut numbers: HashMap<Vec<u8>, u64> = HashMap::new();
    for file in files.iter_mut().filter(|file| !file.pad) {
        let own = key(&file.path);
        let mut candidate = own.clone();
        let mut number = numbers.get(&own).copied().unwrap_or(0);
        if number > 0 {
            number += 1;
            candidate = numbered(&own, number);
        }
        while is_folder(&candidate) || taken.contains(&candidate) {
            number += 1;
            candidate = numbered(&own, number);
        }
        if number > 0 {
            let mut path = std::mem::take(&mut file.path).into_os_string();
            path.push(format!(".{number}"));
            file.path = path.into();
            numbers.insert(own, number);
        }
        taken.insert(candidate);
    }
}

/// A path with zero bytes between its components (no safe component holds one), the way the file system compares
/// names.
fn key(path: &Path) -> Vec<u8> {
    let mut key = Vec::with_capacity(path.as_os_str().len());
    for component in path.components() {
        if !key.is_empty() {
            key.push(0);
        }
        let name = component.as_os_str();
        if cfg!(any(windows, target_os = "macos")) {
            key.extend(name.to_string_lossy().to_lowercase().bytes());
        } else {
            key.extend(name.as_encoded_bytes());
        }
    }
    key
}

fn numbered(key: &[u8], number: u64) -> Vec<u8> {
    [key, format!(".{number}").as_bytes()].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_become_one_harmless_component() {
        for (name, want) in [
            (&b".."[..], "_"),
            (b".", "_"),
            (b"", "_"),
            (b"../../etc/passwd", ".._.._etc_passwd"),
            (b"/etc/passwd", "_etc_passwd"),
            (b"a\\b", "a_b"),
            (b"a\0b\n", "a_b_"),
            (b"bad \xff\xfe utf8", "bad __ utf8"),
            ("exe.\u{202e}gpj".as_bytes(), "exe._gpj"),
            ("f\u{fc}r dich .txt".as_bytes(), "f\u{fc}r dich .txt"),
            (b" lead and trail ", " lead and trail "),
        ] {
            assert_eq!(sanitise(name), want);
        }
        assert_eq!(sanitise(&[b'x'; 5000]).len(), MAX_COMPONENT);
        assert_eq!(sanitise("\u{20ac}".repeat(500).as_bytes()).len(), MAX_COMPONENT);
    }

    #[test]
    fn equal_paths_are_told_apart() {
        let file = |path: &str| File {
            path: path.into(),
            length: 1,
            offset: 0,
            pad: false,
            executable: false,
            pieces_root: None,
        };
        let mut files = ["t/a", "t/a", "t/a.1", "t/b/c", "t/b", "t/a"].map(file);
        separate(&mut files);
        let got: Vec<_> = files.iter().map(|file| file.path.to_str().unwrap()).collect();
        assert_eq!(got, ["t/a", "t/a.1", "t/a.1.1", "t/b/c", "t/b.1", "t/a.2"]);
    }

    #[test]
    fn a_hundred_thousand_equal_names_take_no_time() {
        let file = || File {
            path: "t/a".into(),
            length: 1,
            offset: 0,
            pad: false,
            executable: false,
            pieces_root: None,
        };
        let mut files: Vec<File> = std::iter::repeat_with(file).take(100_000).collect();
        separate(&mut files);
        assert_eq!(files[99_999].path, Path::new("t/a.99999"));
        let distinct: HashSet<_> = files.iter().map(|file| &file.path).collect();
        assert_eq!(distinct.len(), files.len());
    }

    #[test]
    fn paths_beyond_what_can_exist_are_refused() {
        assert!(join("t", &[&b"a"[..]; 101]).is_none());
        assert!(join("t", &[&[b'x'; 200][..]; 50]).is_none());
        assert_eq!(join("t", &[b"..", b"x"]).unwrap(), Path::new("t/_/x"));
    }
}
