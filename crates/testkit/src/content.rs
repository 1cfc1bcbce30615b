//! Files to share: pseudo-random, the same for the same seed, and compared by SHA-256.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

/// A small generator (SplitMix64): the bytes must not repeat or compress, they need not be secret.
#[derive(Debug, Clone)]
pub struct Bytes64 {
    state: u64,
}

impl Bytes64 {
    /// Begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Bytes64 { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound` (which must not be 0), even enough for tests.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// Writes one file of `length` bytes.
///
/// # Errors
/// When the disk refuses.
pub fn write_file(path: &Path, length: u64, seed: u64) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut source = Bytes64::new(seed);
    let mut buffer = vec![0; 1 << 20];
    let mut left = length;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        source.fill(&mut buffer[..now]);
        file.write_all(&buffer[..now])?;
        left -= now as u64;
    }
    Ok(())
}

/// Writes `count` files of differing lengths up to `max_length` into nested folders below `root`; some are empty, and
/// some have names that are awkward but legal.
///
/// # Errors
/// When the disk refuses.
pub fn write_tree(root: &Path, count: u32, max_length: u64, seed: u64) -> Result<()> {
    let mut source = Bytes64::new(seed);
    for index in 0..count {
        let length = if index % 97 == 13 {
            0
        } else {
            1 + source.below(max_length)
        };
        let name = match index % 50 {
            7 => format!("with space {index}.bin"),
            8 => format!("größe-{index}.dat"),
            9 => format!(".hidden{index}"),
            _ => format!("file{index:04}.bin"),
        };
        let folder = root
            .join(format!("part{}", index % 10))
            .join(format!("sub{}", index % 3));
        write_file(&folder.join(name), length, source.next_u64())?;
    }
    Ok(())
}

/// SHA-256 of a file, in hex.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}

/// SHA-256 of every file below `root` by its path relative to it; for a single file, by its name.
///
/// # Errors
/// When something cannot be read.
pub fn sha256_tree(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut sums = BTreeMap::new();
    if root.is_file() {
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        sums.insert(name, sha256_file(root)?);
        return Ok(sums);
    }
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
                sums.insert(name, sha256_file(&path)?);
            }
        }
    }
    Ok(sums)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_tree() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, three) = (
            folder.path().join("1"),
            folder.path().join("2"),
            folder.path().join("3"),
        );
        write_tree(&one, 120, 3_000, 7).unwrap();
        write_tree(&two, 120, 3_000, 7).unwrap();
        write_tree(&three, 120, 3_000, 8).unwrap();
        let sums = sha256_tree(&one).unwrap();
        assert_eq!(sums.len(), 120);
        assert_eq!(sums, sha256_tree(&two).unwrap());
        assert_ne!(sums, sha256_tree(&three).unwrap());
    }
}
