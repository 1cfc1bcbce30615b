//! A disk that is soon full: a small tmpfs in a mount namespace of its own, which vanishes with the process that holds
//! it. Programs are started inside; the test reads what they wrote through `/proc`.

use crate::child::{Child, bound_command};
use crate::wait::wait_for;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A mounted disk; dropped, it is gone.
#[derive(Debug)]
pub struct TinyDisk {
    holder: Child,
    user_namespace: bool,
    folder: tempfile::TempDir,
}

impl TinyDisk {
    /// Mounts a disk of so many bytes. Root needs no more; others get a user namespace for it.
    ///
    /// # Errors
    /// When this machine allows neither.
    pub fn mount(bytes: u64) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("dunlin-disk-").tempdir()?;
        let point = folder.path().join("disk");
        std::fs::create_dir(&point)?;
        let user_namespace = !rustix::process::geteuid().is_root();
        let mut command = bound_command("unshare");
        command.arg("--mount");
        if user_namespace {
            command.arg("--map-root-user");
        }
        // The shell becomes the holder: it keeps the namespace alive and does nothing else.
        let script = "mount -t tmpfs -o size=$1 tmpfs \"$2\" && touch \"$2/mounted\" && exec sleep 100000";
        command
            .args(["sh", "-c", script, "holder", &bytes.to_string()])
            .arg(&point);
        let holder = Child::start("disk holder", command, &folder.path().join("holder.log"))?;
        let mut disk = TinyDisk {
            holder,
            user_namespace,
            folder,
        };
        wait_for("the tiny disk is mounted", Duration::from_secs(10), || {
            if let Err(error) = disk.holder.check_alive() {
                return Some(Err(error));
            }
            disk.outside("mounted").exists().then_some(Ok(()))
        })??;
        std::fs::remove_file(disk.outside("mounted"))?;
        Ok(disk)
    }

    /// The disk's folder as programs inside see it.
    pub fn inside(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// A path on the disk as this process sees it.
    pub fn outside(&self, path: impl AsRef<Path>) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        let inside = self.inside().join(path);
        root.join(inside.strip_prefix("/").unwrap_or(&inside))
    }

    /// A command that runs `program` inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = bound_command("nsenter");
        command
            .arg("--target")
            .arg(self.holder.pid().to_string())
            .arg("--mount");
        if self.user_namespace {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command
    }

    /// Gives the disk another size.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resize(&self, bytes: u64) -> Result<()> {
        let option = format!("remount,size={bytes}");
        let status = self.command("mount").args(["-o", &option]).arg(self.inside()).status();
        ensure!(
            status.context("cannot start mount")?.success(),
            "cannot resize the tiny disk"
        );
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_fills_grows_and_is_seen_from_outside() {
        let disk = TinyDisk::mount(1 << 20).unwrap();
        let fill = |count: &str| {
            let mut command = disk.command("dd");
            command.args(["if=/dev/zero", "bs=1024", &format!("count={count}")]);
            command.arg(format!("of={}", disk.inside().join("file").display()));
            command.output().unwrap().status.success()
        };
        assert!(fill("512"));
        assert_eq!(std::fs::metadata(disk.outside("file")).unwrap().len(), 512 << 10);
        assert!(
            !disk.inside().join("file").exists(),
            "the disk is not mounted for everybody"
        );
        assert!(!fill("2048"));
        disk.resize(4 << 20).unwrap();
        assert!(fill("2048"));
    }
}
