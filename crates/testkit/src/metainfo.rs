//! Torrent files for tests (BEP 3, version 1), made without any of our own code.

use anyhow::{Context, Result};
use sha1::{Digest, Sha1};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A torrent and where its content lies.
#[derive(Debug, Clone)]
pub struct Torrent {
    /// Its name: the file or the folder.
    pub name: String,
    /// Bytes of a piece.
    pub piece_length: u64,
    /// Bytes of all files.
    pub total: u64,
    /// SHA-1 of the info dictionary.
    pub info_hash: [u8; 20],
    /// The .torrent file's bytes.
    pub bytes: Vec<u8>,
    /// The info dictionary's bytes.
    pub info: Vec<u8>,
    files: Vec<(PathBuf, u64)>,
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(format!("i{number}e").as_bytes());
}

impl Torrent {
    /// Makes a torrent of a file or of a folder with everything in it.
    ///
    /// # Errors
    /// When the content cannot be read.
    pub fn create(content: &Path, piece_length: u64, tracker: Option<&str>) -> Result<Self> {
        let name = content
            .file_name()
            .context("content has a name")?
            .to_string_lossy()
            .into_owned();
        let mut files = Vec::new();
        list(content, &mut files)?;
        files.sort();
        let total = files.iter().map(|(_, length)| length).sum();
        let pieces = hash_pieces(&files, piece_length)?;

        let mut info = vec![b'd'];
        if content.is_dir() {
            put_bytes(&mut info, b"files");
            info.push(b'l');
            for (path, length) in &files {
                info.push(b'd');
                put_bytes(&mut info, b"length");
                put_number(&mut info, *length);
                put_bytes(&mut info, b"path");
                info.push(b'l');
                for part in path.strip_prefix(content)?.components() {
                    put_bytes(&mut info, part.as_os_str().to_string_lossy().as_bytes());
                }
                info.extend_from_slice(b"ee");
            }
            info.push(b'e');
        } else {
            put_bytes(&mut info, b"length");
            put_number(&mut info, total);
        }
        put_bytes(&mut info, b"name");
        put_bytes(&mut info, name.as_bytes());
        put_bytes(&mut info, b"piece length");
        put_number(&mut info, piece_length);
        put_bytes(&mut info, b"pieces");
        put_bytes(&mut info, &pieces);
        info.push(b'e');

        let mut bytes = vec![b'd'];
        if let Some(tracker) = tracker {
            put_bytes(&mut bytes, b"announce");
            put_bytes(&mut bytes, tracker.as_bytes());
        }
        put_bytes(&mut bytes, b"info");
        bytes.extend_from_slice(&info);
        bytes.push(b'e');
        let info_hash = Sha1::digest(&info).into();
        Ok(Torrent {
            name,
            piece_length,
            total,
            info_hash,
            bytes,
            info,
            files,
        })
    }

    /// The same single file as one file of a folder, under any path at all: what a hostile author would write.
    ///
    /// # Errors
    /// When the content is no single file or cannot be read.
    pub fn create_with_path(content: &Path, piece_length: u64, name: &str, path: &[&str]) -> Result<Self> {
        let length = std::fs::metadata(content)?.len();
        let files = vec![(content.to_owned(), length)];
        let pieces = hash_pieces(&files, piece_length)?;
        let mut info = b"d5:filesld6:length".to_vec();
        put_number(&mut info, length);
        info.extend_from_slice(b"4:pathl");
        for part in path {
            put_bytes(&mut info, part.as_bytes());
        }
        info.extend_from_slice(b"eee4:name");
        put_bytes(&mut info, name.as_bytes());
        info.extend_from_slice(b"12:piece length");
        put_number(&mut info, piece_length);
        info.extend_from_slice(b"6:pieces");
        put_bytes(&mut info, &pieces);
        info.push(b'e');
        let bytes = [b"d4:info", info.as_slice(), b"e"].concat();
        let info_hash = Sha1::digest(&info).into();
        Ok(Torrent {
            name: name.to_owned(),
            piece_length,
            total: length,
            info_hash,
            bytes,
            info,
            files,
        })
    }

    /// Writes the .torrent file.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn save(&self, path: &Path) -> Result<()> {
        std::fs::write(path, &self.bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The info hash in hex.
    pub fn hash_hex(&self) -> String {
        hex::encode(self.info_hash)
    }

    /// A magnet link (BEP 9) with peers to ask (`x.pe`) and perhaps a tracker.
    pub fn magnet(&self, peers: &[std::net::SocketAddr], tracker: Option<&str>) -> String {
        let mut link = format!("magnet:?xt=urn:btih:{}&dn=test", self.hash_hex());
        if let Some(tracker) = tracker {
            let escaped = tracker.replace(':', "%3A").replace('/', "%2F");
            link.push_str(&format!("&tr={escaped}"));
        }
        for peer in peers {
            link.push_str(&format!("&x.pe={peer}"));
        }
        link
    }

    /// Number of pieces.
    pub fn pieces(&self) -> u64 {
        self.total.div_ceil(self.piece_length)
    }

    /// Reads content at a place counted over all files.
    ///
    /// # Errors
    /// When a file cannot be read or the range passes the end.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let mut out = vec![0; length];
        let (mut at, mut filled, mut start) = (offset, 0, 0);
        for (path, file_length) in &self.files {
            let end = start + file_length;
            if at < end && filled < length {
                let inside = at - start;
                let now = usize::try_from(file_length - inside)?.min(length - filled);
                std::fs::File::open(path)?.read_exact_at(&mut out[filled..filled + now], inside)?;
                filled += now;
                at += now as u64;
            }
            start = end;
        }
        anyhow::ensure!(filled == length, "the range passes the end of the torrent");
        Ok(out)
    }
}

fn list(path: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    let kind = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !kind.is_dir() {
        files.push((path.to_owned(), kind.len()));
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        list(&entry?.path(), files)?;
    }
    Ok(())
}

/// SHA-1 of each piece over the files laid end to end.
fn hash_pieces(files: &[(PathBuf, u64)], piece_length: u64) -> Result<Vec<u8>> {
    let length = usize::try_from(piece_length)?;
    let mut sums = Vec::new();
    let mut piece: Vec<u8> = Vec::with_capacity(length);
    for (path, _) in files {
        let mut file = std::fs::File::open(path)?;
        loop {
            let space = (length - piece.len()) as u64;
            if (&mut file).take(space).read_to_end(&mut piece)? == 0 {
                break;
            }
            if piece.len() == length {
                sums.extend_from_slice(&Sha1::digest(&piece));
                piece.clear();
            }
        }
    }
    if !piece.is_empty() {
        sums.extend_from_slice(&Sha1::digest(&piece));
    }
    Ok(sums)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::content;

    #[test]
    fn a_folder_becomes_one_run_of_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        content::write_tree(&root, 40, 5_000, 1).unwrap();
        let torrent = Torrent::create(&root, 16_384, None).unwrap();
        let mut joined = Vec::new();
        for (path, _) in &torrent.files {
            joined.extend(std::fs::read(path).unwrap());
        }
        assert_eq!(joined.len() as u64, torrent.total);
        let middle = torrent.read(10_000, 30_000).unwrap();
        assert_eq!(middle, &joined[10_000..40_000]);
        let first = Sha1::digest(&joined[..16_384]);
        let place = torrent.info.windows(20).position(|window| window == first.as_slice());
        assert!(place.is_some(), "the first piece's sum is in the info dictionary");
        assert!(torrent.read(torrent.total, 1).is_err());
    }
}
