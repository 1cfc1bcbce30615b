//! `mempool.dat`, in Bitcoin Core's format, and `fee_estimates.dat`, in our own: what the memory pool held and what
//! fees had taught it, kept across restarts.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use dunlin_api::Stop;
use dunlin_mempool::{DumpError, Estimator, ImportOptions, Pool};

const POOL: &str = "mempool.dat";
const ESTIMATES: &str = "fee_estimates.dat";
/// Loading is told again whenever so many hundredths more are done.
const TELL: u64 = 10;

/// Reads what fees had taught an earlier run.
pub(super) fn load_estimates(dir: &Path, pool: &mut Pool) {
    let path = dir.join(ESTIMATES);
    let Ok(bytes) = fs::read(&path) else { return };
    match Estimator::decode(&bytes, super::now().unix_secs()) {
        Ok(estimator) => pool.set_estimator(estimator),
        Err(error) => tracing::warn!("{}: {error}; starting to learn fees anew", path.display()),
    }
}

/// Loads the transactions of an earlier run, on the caller's thread. A damaged file is put aside, so that nothing
/// overwrites what could not be read of it.
pub(super) fn load(dir: &Path, pool: &RwLock<Pool>, stop: &Stop) {
    let path = dir.join(POOL);
    if path.exists() {
        let options = ImportOptions {
            use_current_time: false,
            apply_fee_delta_priority: true,
        };
        let mut told = 0;
        let go_on = |done: u64, all: u64| {
            let percent = done.saturating_mul(100) / all.max(1);
            if percent >= told + TELL && percent < 100 {
                told = percent;
                tracing::info!("loading the memory pool: {done} of {all} transactions");
            }
            !stop.is_triggered()
        };
        match dunlin_mempool::import(pool, &path, super::now().unix_secs(), options, go_on) {
            Ok(sum) if !stop.is_triggered() => tracing::info!(
                "memory pool loaded: {} transactions taken, {} refused, {} too old, {} here already",
                sum.accepted,
                sum.failed,
                sum.expired,
                sum.known
            ),
            // What was not looked at is in the file, which stays as it is.
            Ok(_) => return,
            Err(error) => set_aside(&path, &error),
        }
    }
    pool.write().unwrap_or_else(PoisonError::into_inner).set_loaded(true);
}

fn set_aside(path: &Path, error: &DumpError) {
    let aside = path.with_extension("dat.damaged");
    let kept = match fs::rename(path, &aside) {
        Ok(()) => format!("it is kept as {}", aside.display()),
        Err(_) => "it will be overwritten".to_owned(),
    };
    tracing::warn!(
        "{}: {error}; what could be read of it was loaded, and {kept}",
        path.display()
    );
}

/// Saves both files. A pool that is not loaded yet is in its file already.
pub(super) fn save(dir: &Path, pool: &Arc<RwLock<Pool>>) -> anyhow::Result<()> {
    let (loaded, estimates) = {
        let pool = pool.read().unwrap_or_else(PoisonError::into_inner);
        (pool.is_loaded(), pool.estimator().encode(super::now().unix_secs()))
    };
    if loaded {
        let path = dir.join(POOL);
        dunlin_mempool::save(pool, &path, rand::random())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let (path, temporary) = (dir.join(ESTIMATES), dir.join(format!("{ESTIMATES}.new")));
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&estimates)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
