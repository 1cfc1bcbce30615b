//! A large regtest chain to measure chain engines with: made once on a machine, kept in the cache folder.
//!
//! Over a million and a half transactions with the locks that people use (P2PKH, P2SH-P2WPKH, P2WPKH, P2WSH multisig,
//! P2TR by key and by script) leave over two million coins. The same day gives the same chain. A real bitcoind checks
//! every script of it once; its data folder then serves the chain to whoever is measured. Empty blocks at the end bury
//! the others by more than two weeks of work, because bitcoind skips the scripts of an assumed-valid chain only then.

mod grow;
mod keys;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use bitcoin::{Network, consensus};
use serde_json::{Value, json};

pub use grow::{Shape, Totals};

use crate::core::{Bitcoind, Options};
use crate::core_build::{cache_folder, lock};
use crate::wait::wait_until;
use grow::Grower;

/// Counts up with every change of what is generated.
const VERSION: u32 = 1;
/// The chain of the benches.
const LARGE: Shape = Shape {
    fans: 48,
    fan_transactions: 10,
    fan_outputs: 2500,
    busy: 425,
    weight: 3_950_000,
    burial: 2020,
};
/// The length at which Core begins another block file.
const FILE_LIMIT: u64 = 128 << 20;
/// What the names of folders that serve the chain begin with.
const SERVE: &str = "serve-";
const DAY: u64 = 24 * 60 * 60;
/// How long bitcoind may take to check all scripts, on a busy machine.
const CHECK_LIMIT: Duration = Duration::from_secs(60 * 60);

/// The chain, ready to be served.
#[derive(Clone, Debug)]
pub struct BenchChain {
    folder: PathBuf,
    /// Height of its tip.
    pub height: u64,
    /// Hash of its tip.
    pub tip: String,
    /// Unspent coins at the tip, as bitcoind counts them.
    pub coins: u64,
    /// What its blocks hold.
    pub totals: Totals,
}

impl BenchChain {
    /// The chain of the benches; makes it when it is not there yet (some minutes, with progress on stderr).
    ///
    /// # Errors
    /// When the disk or bitcoind fails.
    pub fn ready() -> Result<Self> {
        let cache = cache_folder()?;
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let _lock = lock(&cache.join("bench-chain.lock"))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let end_time = u32::try_from(now / DAY * DAY)?;
        Self::open_or_make(&cache.join(format!("bench-chain-{VERSION}")), LARGE, end_time)
    }

    fn open_or_make(folder: &Path, shape: Shape, end_time: u32) -> Result<Self> {
        let stamp = folder.join("facts.json");
        if !stamp.exists() {
            // What an interrupted run left is of no use.
            if folder.exists() {
                fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
            }
            fs::create_dir_all(folder.join("blocks"))?;
            let facts = make(folder, shape, end_time)?;
            let fresh = folder.join("facts.new");
            fs::write(&fresh, facts.to_string())?;
            fs::rename(fresh, &stamp)?;
        }
        let facts: Value = serde_json::from_slice(&fs::read(&stamp)?)?;
        let number = |name: &str| {
            facts[name]
                .as_u64()
                .with_context(|| format!("{}: no {name}", stamp.display()))
        };
        Ok(Self {
            folder: folder.to_owned(),
            height: number("height")?,
            tip: facts["tip"].as_str().context("the facts name the tip")?.to_owned(),
            coins: number("coins")?,
            totals: Totals {
                transactions: number("transactions")?,
                inputs: number("inputs")?,
                verifications: number("verifications")?,
                bytes: number("bytes")?,
            },
        })
    }

    /// How many blocks at its end hold nothing but their reward.
    pub fn burial(&self) -> u32 {
        LARGE.burial
    }

    /// The folder that keeps it: block files as `blk*.dat` in `blocks`, bitcoind's data in `core`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The block files in Core's format, not XORed, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        block_files(&self.folder)
    }

    /// Starts a bitcoind that has the whole chain, on links to the kept files, so that many can run at once.
    ///
    /// # Errors
    /// When the disk or bitcoind fails.
    pub fn serve(&self) -> Result<Bitcoind> {
        let _lock = lock(&self.folder.join("serve.lock"))?;
        clear_leftovers(&self.folder)?;
        // Beside the original: links do not reach across file systems.
        let folder = tempfile::Builder::new().prefix(SERVE).tempdir_in(&self.folder)?;
        link_tree(&self.folder.join("core"), folder.path())?;
        let options = Options {
            extra: [
                "-debug=0",
                "-maxtipage=1000000000",
                "-whitelist=noban,download@127.0.0.1",
                "-connect=0",
            ]
            .map(str::to_owned)
            .to_vec(),
            ..Options::default()
        };
        let node = Bitcoind::start_in(folder, options)?;
        ensure!(node.best_hash()? == self.tip, "bitcoind does not have the bench chain");
        Ok(node)
    }
}

/// Runs `work` on every item, on all cores; the answers keep the items' order.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<R>>()))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<R>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().flat_map(join).collect()
    })
}

fn make(folder: &Path, shape: Shape, end_time: u32) -> Result<Value> {
    let mut grower = Grower::new(shape, end_time)?;
    let mut writer = Writer::new(folder)?;
    writer.write(&consensus::serialize(&bitcoin::constants::genesis_block(
        Network::Regtest,
    )))?;
    let mut height = 0;
    while let Some(block) = grower.next()? {
        writer.write(&consensus::serialize(&block))?;
        height += 1;
        eprint!("\rgenerating the bench chain: block {height} of {}", shape.height());
    }
    eprintln!();
    writer.finish()?;
    let (tip, totals) = (grower.tip().to_string(), grower.totals);
    drop(grower);
    let coins = check(folder, shape.height().into(), &tip)?;
    Ok(json!({
        "height": height,
        "tip": tip,
        "coins": coins,
        "transactions": totals.transactions,
        "inputs": totals.inputs,
        "verifications": totals.verifications,
        "bytes": totals.bytes,
    }))
}

/// Lets a bitcoind check every block and script, and keeps its data folder; returns how many coins are unspent.
fn check(folder: &Path, height: u64, tip: &str) -> Result<u64> {
    let data = tempfile::Builder::new().prefix("check-").tempdir_in(folder)?;
    let mut extra: Vec<String> = ["-debug=0", "-assumevalid=0", "-par=0", "-dbcache=1000", "-connect=0"]
        .map(str::to_owned)
        .to_vec();
    extra.extend(
        block_files(folder)?
            .iter()
            .map(|file| format!("-loadblock={}", file.display())),
    );
    let mut node = Bitcoind::start_in(
        data,
        Options {
            extra,
            ..Options::default()
        },
    )?;
    wait_until("bitcoind has checked the bench chain", CHECK_LIMIT, || {
        let at = node.height().unwrap_or_default();
        eprint!("\rbitcoind checks the bench chain: block {at} of {height}");
        at == height
    })?;
    eprintln!();
    ensure!(node.best_hash()? == tip, "bitcoind follows another chain");
    let coins = node.call("gettxoutsetinfo", json!(["none"]))?;
    let coins = coins["txouts"].as_u64().context("bitcoind counts its coins")?;
    node.stop()?;
    let data = node.into_folder().keep();
    fs::rename(&data, folder.join("core")).with_context(|| format!("cannot move {}", data.display()))?;
    Ok(coins)
}

fn block_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder.join("blocks"))?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// Removes what benches that were killed have left: folders in which no bitcoind runs. None is being started.
fn clear_leftovers(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(SERVE) && !is_running(&path) {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Whether a bitcoind holds the lock of its data folder, which dies with it.
fn is_running(folder: &Path) -> bool {
    let file = File::options().write(true).open(folder.join("regtest").join(".lock"));
    let lock = |file: File| rustix::fs::fcntl_lock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    file.is_ok_and(|file| lock(file).is_err())
}

/// Copies a data folder. Files that bitcoind never changes once they are full of a chain are linked.
fn link_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().context("an entry has a name")?;
        let target = to.join(name);
        if path.is_dir() {
            fs::create_dir(&target)?;
            link_tree(&path, &target)?;
        } else if matches!(
            path.extension().and_then(|extension| extension.to_str()),
            Some("ldb" | "dat")
        ) {
            fs::hard_link(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// Writes blocks one after the other as Core does: magic, length, block.
struct Writer {
    folder: PathBuf,
    files: usize,
    length: u64,
    file: BufWriter<File>,
}

impl Writer {
    fn new(folder: &Path) -> Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            files: 1,
            length: 0,
            file: Self::create(folder, 0)?,
        })
    }

    fn create(folder: &Path, number: usize) -> Result<BufWriter<File>> {
        let path = folder.join("blocks").join(format!("blk{number:05}.dat"));
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(BufWriter::with_capacity(1 << 20, file))
    }

    fn write(&mut self, block: &[u8]) -> Result<()> {
        let record = block.len() as u64 + 8;
        if self.length + record > FILE_LIMIT {
            self.file.flush()?;
            self.file = Self::create(&self.folder, self.files)?;
            self.files += 1;
            self.length = 0;
        }
        self.length += record;
        self.file.write_all(&Network::Regtest.magic().to_bytes())?;
        self.file.write_all(&u32::try_from(block.len())?.to_le_bytes())?;
        self.file.write_all(block)?;
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.file.flush()?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The large chain in small.
    const SMALL: Shape = Shape {
        fans: 2,
        fan_transactions: 3,
        fan_outputs: 60,
        busy: 8,
        weight: 80_000,
        burial: 3,
    };

    #[test]
    fn bitcoind_accepts_the_chain_and_serves_it_from_what_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("chain");
        let chain = BenchChain::open_or_make(&place, SMALL, 1_700_000_000).unwrap();
        assert_eq!(chain.height, 113);
        assert!(chain.coins > 300 && chain.totals.transactions > 400, "{chain:?}");
        assert!(chain.totals.verifications > chain.totals.inputs);
        let (first, second) = (chain.serve().unwrap(), chain.serve().unwrap());
        assert_eq!(first.height().unwrap(), second.height().unwrap());
        let tip = first.block(&chain.tip).unwrap();
        assert_eq!(tip.header.time, 1_700_000_000);
        // What a killed run left goes, what runs stays.
        let serving = || {
            let names = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_string_lossy().starts_with(SERVE)).count()
        };
        assert_eq!(serving(), 2);
        let left = place.join("serve-left");
        fs::create_dir(&left).unwrap();
        link_tree(&place.join("core"), &left).unwrap();
        fs::create_dir(place.join("serve-begun")).unwrap();
        let third = chain.serve().unwrap();
        assert_eq!(serving(), 3);
        for node in [&first, &second, &third] {
            assert_eq!(node.height().unwrap(), chain.height);
        }
        let again = BenchChain::open_or_make(&place, SMALL, 0).unwrap();
        assert_eq!(again.tip, chain.tip);
    }
}
