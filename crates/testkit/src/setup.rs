//! Finds or prepares the real peers, each once on a machine.

use crate::core_build::{cache_folder, lock, run};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The line of libtorrent releases that tests run against.
const LIBTORRENT: &str = "libtorrent==2.1.*";
const IMPORT_LIBTORRENT: &str = "import libtorrent; assert libtorrent.version.startswith('2.1.')";
/// The Python package around ZeroMQ's own library.
const PYZMQ: &str = "pyzmq==27.*";
const IMPORT_PYZMQ: &str = "import zmq";

/// The Python that has libtorrent; made when it is not there (a download, once on a machine).
///
/// # Errors
/// When Python or the package cannot be had.
pub fn python() -> Result<PathBuf> {
    let cache = cache_folder()?;
    let home = cache.join("venv");
    let python = home.join("bin").join("python");
    if imports(&python, IMPORT_LIBTORRENT) {
        return Ok(python);
    }
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let _lock = lock(&cache.join("venv.lock"))?;
    // Another process may have made it while we waited for the lock.
    if imports(&python, IMPORT_LIBTORRENT) {
        return Ok(python);
    }
    let log = cache.join("venv.log");
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home), &log)?;
    run(
        Command::new(&python).args(["-m", "pip", "install", "--quiet", LIBTORRENT]),
        &log,
    )?;
    if !imports(&python, IMPORT_LIBTORRENT) {
        bail!("{} cannot import libtorrent", python.display());
    }
    Ok(python)
}

/// [`python`] with a ZeroMQ package, too.
///
/// # Errors
/// When Python or a package cannot be had.
pub fn python_with_zmq() -> Result<PathBuf> {
    let python = python()?;
    let cache = cache_folder()?;
    let _lock = lock(&cache.join("venv.lock"))?;
    if !imports(&python, IMPORT_PYZMQ) {
        let log = cache.join("venv.log");
        run(
            Command::new(&python).args(["-m", "pip", "install", "--quiet", PYZMQ]),
            &log,
        )?;
    }
    if !imports(&python, IMPORT_PYZMQ) {
        bail!("{} cannot import zmq", python.display());
    }
    Ok(python)
}

fn imports(python: &Path, check: &str) -> bool {
    Command::new(python)
        .args(["-c", check])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The first of several names of a program that is on the search path.
fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let places = names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    places.into_iter().find(|place| place.is_file())
}

fn found(names: &[&str]) -> Result<PathBuf> {
    find(names).with_context(|| format!("{} is not installed; run scripts/setup.sh test", names.join(" or ")))
}

/// The Transmission daemon.
///
/// # Errors
/// When it is not installed.
pub fn transmission() -> Result<PathBuf> {
    found(&["transmission-daemon"])
}

/// aria2, with which the benches compare us.
///
/// # Errors
/// When it is not installed.
pub fn aria2() -> Result<PathBuf> {
    found(&["aria2c"])
}

/// The player.
///
/// # Errors
/// When it is not installed.
pub fn ffmpeg() -> Result<PathBuf> {
    found(&["ffmpeg"])
}

/// What tells of a film without playing it.
///
/// # Errors
/// When it is not installed.
pub fn ffprobe() -> Result<PathBuf> {
    found(&["ffprobe"])
}

/// The browser.
///
/// # Errors
/// When none is installed.
pub fn chromium() -> Result<PathBuf> {
    found(&["chromium", "chromium-browser", "google-chrome"])
}

/// The browser's driver.
///
/// # Errors
/// When it is not installed.
pub fn chromedriver() -> Result<PathBuf> {
    found(&["chromedriver"])
}

/// The first line a program prints about its version.
///
/// # Errors
/// When it cannot be started.
pub fn version(program: &Path) -> Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    // Transmission prints its version on the other stream.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines = text.lines().map(str::trim);
    let line = lines
        .into_iter()
        .find(|line| line.contains(|c: char| c.is_ascii_digit()) && !line.contains("operator"));
    Ok(line.unwrap_or("version unknown").to_owned())
}
