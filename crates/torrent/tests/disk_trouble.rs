//! The disk in trouble: hostile folders, full disks, files that change underneath, kill -9.
#![allow(clippy::unwrap_used)]

mod sample;

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dunlin_torrent::disk::{Disk, DiskErrorKind, Done, Job, Verdict};
use dunlin_torrent::resume::Resume;
use dunlin_torrent::wire::Block;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sample::{BORDERS, Sample, sample};

#[test]
fn no_link_is_followed_out_of_the_folder() {
    let sample = sample(
        5,
        &[
            ("deep/file", 1000),
            ("plain", 1000),
            ("dangling", 1000),
            ("pipe", 1000),
            ("fold", 1000),
        ],
    );
    let outside = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("t")).unwrap();
    fs::create_dir(outside.path().join("deep")).unwrap();
    fs::write(outside.path().join("victim"), b"precious").unwrap();
    fs::write(outside.path().join("deep/file"), &sample.content[..1000]).unwrap();
    symlink(outside.path().join("deep"), dir.path().join("t/deep")).unwrap();
    symlink(outside.path().join("victim"), dir.path().join("t/plain")).unwrap();
    symlink(outside.path().join("new"), dir.path().join("t/dangling")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(dir.path().join("t/pipe"))
            .status()
            .unwrap()
            .success()
    );
    fs::create_dir(dir.path().join("t/fold")).unwrap();

    let disk = Disk::default();
    let opened = sample.open(&disk, dir.path(), None).unwrap();
    assert!(
        opened.have.is_none() && opened.unknown.is_empty(),
        "nothing behind a link counts as there"
    );
    let blocked = ["deep/file", "plain", "dangling", "pipe", "fold"];
    for name in blocked {
        let error = sample.write(&disk, 0).unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Obstructed, "{error}");
        assert_eq!(error.path, dir.path().join("t").join(name));
        assert!(sample.check(&disk, Some(0..1)).is_empty());
        assert_eq!(
            sample
                .read(
                    &disk,
                    Block {
                        piece: 0,
                        begin: 0,
                        len: 5000
                    }
                )
                .unwrap_err()
                .kind,
            error.kind
        );
        // Clear this obstacle; the next file has the next one.
        let path = dir.path().join("t").join(name);
        match name {
            "deep/file" => fs::remove_file(dir.path().join("t/deep")).unwrap(),
            "fold" => fs::remove_dir(path).unwrap(),
            _ => fs::remove_file(path).unwrap(),
        }
    }
    assert_eq!(sample.write(&disk, 0).unwrap(), Verdict::Verified);
    sample.assert_files(dir.path());
    assert_eq!(fs::read(outside.path().join("victim")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);

    // Deleting does not follow links either.
    fs::remove_dir_all(dir.path().join("t/deep")).unwrap();
    symlink(outside.path().join("deep"), dir.path().join("t/deep")).unwrap();
    sample.close(&disk, true).unwrap_err();
    assert!(outside.path().join("deep/file").exists());
    assert!(!dir.path().join("t/plain").exists());
}

#[test]
fn the_download_folder_itself_may_be_a_link() {
    let sample = sample(6, BORDERS);
    let real = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let link = other.path().join("downloads");
    symlink(real.path(), &link).unwrap();
    let disk = Disk::default();
    sample.open(&disk, &link, None).unwrap();
    sample.write_all(&disk);
    sample.assert_files(real.path());
}

#[test]
fn closing_deletes_what_is_ours_and_nothing_else() {
    let sample = sample(7, BORDERS);
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    sample.open(&disk, dir.path(), None).unwrap();
    sample.write_all(&disk);
    fs::write(dir.path().join("t/b/mine"), b"x").unwrap();
    sample.close(&disk, true).unwrap();
    assert_eq!(disk.open_files(), 0);
    let left: Vec<_> = fs::read_dir(dir.path().join("t"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["b"]);
    assert_eq!(fs::read_dir(dir.path().join("t/b")).unwrap().count(), 1);
    assert_eq!(sample.write(&disk, 0).unwrap_err().kind, DiskErrorKind::Misuse);

    let untouched = tempfile::tempdir().unwrap();
    sample.open(&disk, untouched.path(), None).unwrap();
    sample.write_all(&disk);
    sample.close(&disk, false).unwrap();
    sample.assert_files(untouched.path());
    sample.open(&disk, untouched.path(), None).unwrap();
    sample.close(&disk, true).unwrap();
    assert_eq!(
        fs::read_dir(untouched.path()).unwrap().count(),
        0,
        "empty folders go too, the download folder stays"
    );
}

#[test]
fn reading_only_creates_nothing() {
    let sample = sample(8, BORDERS);
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let metainfo = Arc::clone(&sample.metainfo);
    let dir_path: PathBuf = dir.path().join("none");
    let open = Job::Open {
        metainfo,
        dir: dir_path.clone(),
        resume: None,
        read_only: true,
    };
    let Done::Opened { result: Ok(opened), .. } = disk.run(open) else {
        panic!()
    };
    assert!(opened.unknown.is_empty());
    assert_eq!(sample.write(&disk, 0).unwrap_err().kind, DiskErrorKind::Permission);
    let error = sample
        .read(
            &disk,
            Block {
                piece: 0,
                begin: 0,
                len: 1,
            },
        )
        .unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Changed);
    assert!(
        error.to_string().ends_with("t/a: cannot open: the file is not there"),
        "{error}"
    );
    assert!(!dir_path.exists());
}

#[test]
fn a_file_that_shrinks_underneath_is_noticed() {
    let sample = sample(9, &[("one", 100_000)]);
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    sample.open(&disk, dir.path(), None).unwrap();
    sample.write_all(&disk);
    fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("t/one"))
        .unwrap()
        .set_len(50_000)
        .unwrap();
    assert!(
        sample
            .read(
                &disk,
                Block {
                    piece: 0,
                    begin: 0,
                    len: 100
                }
            )
            .is_ok()
    );
    let error = sample
        .read(
            &disk,
            Block {
                piece: 1,
                begin: 16_384,
                len: 1000,
            },
        )
        .unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Changed, "{error}");
    assert_eq!(sample.check(&disk, Some(0..4)), [0]);
}

/// Writes the sample's pieces until one fails; the caller made sure that one will.
fn fill_until_error(sample: &Sample, dir: &Path, want: DiskErrorKind) {
    let disk = Disk::default();
    sample.open(&disk, dir, None).unwrap();
    let mut written = Vec::new();
    let error = (0..sample.metainfo.piece_count())
        .find_map(|piece| match sample.write(&disk, piece) {
            Ok(verdict) => {
                assert_eq!(verdict, Verdict::Verified);
                written.push(piece);
                None
            }
            Err(error) => Some(error),
        })
        .unwrap();
    assert_eq!(error.kind, want, "{error}");
    assert_eq!(error.path, dir.join("t/big"));
    assert!(!written.is_empty());
    for &piece in &written {
        let block = sample.metainfo.block(piece, 0).unwrap();
        assert_eq!(
            sample.read(&disk, block).unwrap(),
            sample.piece(piece)[..block.len as usize]
        );
    }
    // After a restart without resume data the written pieces are found, and no others.
    let disk = Disk::default();
    let opened = sample.open(&disk, dir, None).unwrap();
    assert_eq!(sample.check(&disk, opened.unknown), written);
}

#[test]
fn a_full_disk_is_named_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let full = dir.path().join("full");
    fs::create_dir(&full).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "none"])
        .arg(&full)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("not allowed to mount a small file system; the file size limit is tested below all the same");
        return;
    }
    let sample = sample(11, &[("big", 1_000_000)]);
    let result = std::panic::catch_unwind(|| fill_until_error(&sample, &full, DiskErrorKind::Full));
    assert!(Command::new("umount").arg(&full).status().unwrap().success());
    result.unwrap();
}

/// Runs another test of this file in a process of its own, which finds `DUNLIN_TEST_DIR` set.
fn inner(shell: &str, test: &str, dir: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{shell} exec \"$0\" --exact {test} --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .env("DUNLIN_TEST_DIR", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn inner_dir() -> Option<PathBuf> {
    std::env::var_os("DUNLIN_TEST_DIR").map(PathBuf::from)
}

#[test]
fn a_limit_on_file_sizes_is_named_and_harms_nothing() {
    if let Some(dir) = inner_dir() {
        return fill_until_error(&sample(12, &[("big", 1_000_000)]), &dir, DiskErrorKind::TooLarge);
    }
    let dir = tempfile::tempdir().unwrap();
    let shell = "trap '' XFSZ; ulimit -f 500 || exit 9;";
    let output = inner(shell, "a_limit_on_file_sizes_is_named_and_harms_nothing", dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        fs::metadata(dir.path().join("t/big")).unwrap().len() <= 512_000,
        "the limit was in force"
    );
}

#[test]
fn kill_at_any_moment_never_claims_an_unverified_piece() {
    let sample = sample(13, &[("a", 3_000_000), ("b", 10), ("c/d", 5_000_000)]);
    let count = sample.metainfo.piece_count();
    if let Some(dir) = inner_dir() {
        // The victim: goes on from the resume data, writes piece after piece, saves often, until it is killed.
        let disk = Disk::default();
        let file = dir.join("x.resume");
        let opened = sample.open(&disk, &dir, Resume::load(&file).ok()).unwrap();
        let mut have = opened.have.clone();
        for piece in sample.check(&disk, opened.unknown) {
            have.set(piece);
        }
        let missing: Vec<u32> = (0..count).filter(|&piece| !have.get(piece)).collect();
        for piece in missing.into_iter().chain((0..count).cycle()) {
            assert_eq!(sample.write(&disk, piece).unwrap(), Verdict::Verified);
            have.set(piece);
            if piece % 7 == 0 {
                sample.save(&disk, &dir, have.iter(), &file);
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    let mut claimed = 0;
    let mut saved_before = false;
    let mut found_before = Vec::new();
    for round in 0..30 {
        let mut child = inner("", "kill_at_any_moment_never_claims_an_unverified_piece", dir.path())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(rng.random_range(20..150)));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), None, "the victim ended by itself in round {round}");

        let Ok(resume) = Resume::load(&dir.path().join("x.resume")) else {
            assert!(
                !saved_before,
                "round {round}: a resume file that was there is lost or damaged"
            );
            continue;
        };
        let disk = Disk::default();
        let opened = sample.open(&disk, dir.path(), Some(resume)).unwrap();
        let mut have = opened.have.iter().collect::<Vec<_>>();
        let checked = sample.check(&disk, have.iter().map(|&piece| piece..piece + 1));
        assert_eq!(have, checked, "round {round}: claimed, but not on disk");
        claimed += have.len();
        // And the download goes on from where it was: what an earlier round found is found again.
        have.extend(sample.check(&disk, opened.unknown));
        let lost: Vec<_> = found_before.iter().filter(|piece| !have.contains(piece)).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
        saved_before = true;
        found_before = have;
        if round == 15 {
            // Somebody changes a file behind our back between two runs.
            found_before.clear();
            let path = dir.path().join("t/a");
            fs::OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .write_all_at(&[1; 100_000], 0)
                .unwrap();
        }
    }
    assert!(claimed > 0, "resume data that claims nothing proves nothing");
}
