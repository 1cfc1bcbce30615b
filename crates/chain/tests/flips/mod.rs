//! Changing single bits of files, as disks do.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::fs;
use std::path::{Path, PathBuf};

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Every file below a directory that holds anything, in order of names.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if fs::metadata(&path).unwrap().len() > 0 {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What is told to a person is one clear line.
pub fn one_line(text: &str) {
    assert!(
        !text.is_empty() && !text.contains('\n') && text.len() < 400,
        "`{text}` is no clear line"
    );
}

/// A row of numbers from a seed.
pub struct Dice(pub u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    /// Changes one bit of a file in a directory, and prints and returns which.
    pub fn flip(&mut self, dir: &Path, path: &Path) -> String {
        let mut bytes = fs::read(path).unwrap();
        let (place, bit) = (self.roll(bytes.len()), self.roll(8));
        bytes[place] ^= 1 << bit;
        fs::write(path, bytes).unwrap();
        let name = path.strip_prefix(dir).unwrap().display();
        let what = format!("bit {bit} of byte {place} of {name}");
        // Where an abort would say nothing.
        println!("{what}");
        what
    }
}
