//! The data directory: one folder for everything, one sub-folder for each network beside mainnet.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use dunlin_chain::Network;

/// The RPC login of this run: `__cookie__:` and a secret.
pub(crate) const COOKIE_FILE: &str = ".cookie";
/// The address at which this run answers RPC.
pub(crate) const RPC_ADDRESS_FILE: &str = "rpc-address";
/// The address of this run's dashboard.
pub(crate) const API_ADDRESS_FILE: &str = "api-address";
/// The key to the dashboard.
pub(crate) const API_TOKEN_FILE: &str = "api-token";
/// The folder where downloads go unless told otherwise.
pub(crate) const DOWNLOADS: &str = "downloads";
/// Names the network that a folder belongs to.
const MARKER_FILE: &str = "network";

/// The folder of a network: the data directory itself on mainnet, a sub-folder elsewhere (Core's layout).
pub(crate) fn network_dir(data_dir: &Path, network: Network) -> PathBuf {
    match network {
        Network::Mainnet => data_dir.to_owned(),
        other => data_dir.join(other.to_string()),
    }
}

/// Makes the folder of a network ready, or says why it cannot be used.
///
/// # Errors
/// When it cannot be made or written, or when it belongs to another network.
pub(crate) fn prepare(data_dir: &Path, network: Network) -> anyhow::Result<PathBuf> {
    let dir = network_dir(data_dir, network);
    // Named for another network, a folder given as the whole data directory would be filled with a second chain.
    check_marker(data_dir, if dir == data_dir { network } else { Network::Mainnet })?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot make the data directory {}", dir.display()))?;
    check_marker(&dir, network)?;
    let marker = dir.join(MARKER_FILE);
    if !marker.exists() {
        fs::write(&marker, format!("{network}\n"))
            .with_context(|| format!("cannot write to the data directory {}", dir.display()))?;
    }
    Ok(dir)
}

fn check_marker(dir: &Path, network: Network) -> anyhow::Result<()> {
    let Ok(text) = fs::read_to_string(dir.join(MARKER_FILE)) else {
        return Ok(());
    };
    let found = text.trim();
    if !found.is_empty() && found != network.to_string() {
        bail!(
            "{} belongs to {found}; start with --network {found} on the folder above it, or choose another --data-dir",
            dir.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_network() {
        let temp = tempfile::tempdir().unwrap();
        let dir = prepare(temp.path(), Network::Regtest).unwrap();
        assert_eq!(dir, temp.path().join("regtest"));
        prepare(temp.path(), Network::Regtest).unwrap();
        prepare(temp.path(), Network::Mainnet).unwrap();
        prepare(temp.path(), Network::Signet).unwrap();
        for network in [Network::Mainnet, Network::Signet] {
            let error = prepare(&dir, network).unwrap_err().to_string();
            assert!(error.contains("belongs to regtest"), "{error}");
        }
    }
}
