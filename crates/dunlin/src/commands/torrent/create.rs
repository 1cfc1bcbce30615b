//! `dunlin torrent create`.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use dunlin_torrent::create::{Created, Options, Version, create};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::CreateArgs;
use crate::output;

pub(super) fn run(args: &CreateArgs) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let version = match (args.v2, args.hybrid) {
        (true, _) => Version::V2,
        (_, true) => Version::Hybrid,
        _ => Version::V1,
    };
    let options = Options {
        version,
        piece_length: args.piece_length,
        private: args.private,
        trackers: args.tracker.iter().map(|url| vec![url.clone()]).collect(),
        created_by: Some(concat!("Dunlin ", env!("CARGO_PKG_VERSION")).to_owned()),
        creation_date: now.and_then(|now| i64::try_from(now.as_secs()).ok()),
        ..Options::default()
    };
    let created = hash_with_progress(&args.path, &options)?;
    let bytes = created.metainfo.to_bytes();
    std::fs::write(&args.output, bytes).with_context(|| format!("cannot write {}", args.output.display()))?;
    for path in &created.skipped {
        eprintln!("left out (no regular file): {}", path.display());
    }
    let metainfo = &created.metainfo;
    let mut pairs = vec![("written", args.output.display().to_string())];
    pairs.extend(metainfo.info_hash_v1.map(|hash| ("info hash", hash.to_string())));
    pairs.extend(metainfo.info_hash_v2.map(|hash| ("info hash v2", hash.to_string())));
    pairs.extend([
        ("size", output::bytes(metainfo.total_length)),
        (
            "pieces",
            format!(
                "{} of {}",
                metainfo.piece_count(),
                output::bytes(metainfo.piece_length.into())
            ),
        ),
    ]);
    output::pairs(&pairs);
    Ok(())
}

/// Hashes a file or folder into a torrent, with a bar where a person waits.
pub(crate) fn hash_with_progress(path: &Path, options: &Options) -> anyhow::Result<Created> {
    let style = ProgressStyle::with_template("hashing {bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}")
        .context("the template is well formed")?;
    let bar = ProgressBar::new(0).with_style(style);
    let created = create(path, options, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(created?)
}
