//! Builds bitcoind once, from the very source of Bitcoin Core that our script verification is linked from (the package
//! `libbitcoinkernel-sys`), and keeps it in the cache folder.

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version this source calls itself; a package with another one must be met by changing this line.
pub const CORE_VERSION: &str = "31.99";

/// The programs that are kept.
const PROGRAMS: [&str; 2] = ["bitcoind", "bitcoin-cli"];

/// Core's build without what tests do not use.
const FLAGS: [&str; 11] = [
    "-GNinja",
    "-DCMAKE_BUILD_TYPE=Release",
    "-DWITH_EMBEDDED_ASMAP=OFF",
    "-DENABLE_WALLET=OFF",
    "-DENABLE_IPC=OFF",
    "-DENABLE_EXTERNAL_SIGNER=OFF",
    "-DBUILD_TESTS=OFF",
    "-DBUILD_BENCH=OFF",
    "-DBUILD_TX=OFF",
    "-DBUILD_WALLET_TOOL=OFF",
    "-DBUILD_FUZZ_BINARY=OFF",
];

/// Where real peers are kept between runs: `$DUNLIN_TEST_CACHE`, or `~/.cache/dunlin`.
///
/// # Errors
/// When neither is known.
pub fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("DUNLIN_TEST_CACHE") {
        return Ok(PathBuf::from(folder));
    }
    let home = std::env::var_os("HOME").context("HOME is not set: no place to keep real peers")?;
    Ok(PathBuf::from(home).join(".cache").join("dunlin"))
}

/// The path of the cached bitcoind; builds it when it is not there (some minutes, once on a machine).
///
/// # Errors
/// When the source is not found or does not build.
pub fn bitcoind() -> Result<PathBuf> {
    let cache = cache_folder()?;
    let home = cache.join(format!("core-{CORE_VERSION}"));
    let program = home.join("bitcoind");
    if program.is_file() {
        return Ok(program);
    }
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let _lock = lock(&cache.join("core.lock"))?;
    // Another process may have built it while we waited for the lock.
    if !program.is_file() {
        build(&cache, &home)?;
    }
    Ok(program)
}

/// Holds an exclusive lock for as long as the value lives.
pub(crate) fn lock(path: &Path) -> Result<std::fs::File> {
    let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn build(cache: &Path, home: &Path) -> Result<()> {
    let source = source_folder()?;
    let work = cache.join(format!("core-{CORE_VERSION}.build"));
    let fresh = cache.join(format!("core-{CORE_VERSION}.new"));
    for folder in [&work, &fresh, &home.to_path_buf()] {
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
        }
    }
    std::fs::create_dir_all(&fresh)?;
    run(
        Command::new("cmake")
            .arg("-S")
            .arg(&source)
            .arg("-B")
            .arg(&work)
            .args(FLAGS),
        &cache.join("core.log"),
    )?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let mut compile = Command::new("cmake");
    compile
        .arg("--build")
        .arg(&work)
        .args(["--parallel", &jobs, "--target"])
        .args(PROGRAMS);
    run(&mut compile, &cache.join("core.log"))?;
    for program in PROGRAMS {
        std::fs::copy(work.join("bin").join(program), fresh.join(program))
            .with_context(|| format!("the build left no {program}"))?;
    }
    let version = Command::new(fresh.join("bitcoind")).arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    ensure!(
        version.contains(&format!("v{CORE_VERSION}.")),
        "built {:?}, expected version {CORE_VERSION}",
        version.lines().next().unwrap_or_default()
    );
    std::fs::rename(&fresh, home).with_context(|| format!("cannot move bitcoind to {}", home.display()))?;
    std::fs::remove_dir_all(&work)?;
    Ok(())
}

/// Core's source inside the package that this workspace depends on.
fn source_folder() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(manifest)
        .exec()
        .context("cargo metadata does not answer")?;
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "libbitcoinkernel-sys");
    let package = package.context("libbitcoinkernel-sys is not among the dependencies")?;
    let folder = package
        .manifest_path
        .parent()
        .context("a manifest lies in a folder")?
        .join("bitcoin");
    ensure!(
        folder.join("CMakeLists.txt").exists(),
        "no Bitcoin Core source in {folder}"
    );
    Ok(folder.into_std_path_buf())
}

/// Runs a build step with its output in `log`; a failure shows the end of it.
pub(crate) fn run(command: &mut Command, log: &Path) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let file = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let status = command
        .stdin(std::process::Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        let text = std::fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(25)..].join("\n");
        bail!("{name} failed ({status}); the end of {}:\n{tail}", log.display());
    }
    Ok(())
}
