//! The data directory: one folder for everything, one sub-folder for each network beside mainnet.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bitcoin::ScriptBuf;
use dunlin_chain::{Network, Params};

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
/// Names the challenge of a signet of one's own.
const CHALLENGE_FILE: &str = "signet-challenge";

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

/// The parameters of the chain that a network's folder holds.
///
/// # Errors
/// When the folder's note of a signet's challenge cannot be read.
pub(crate) fn params(dir: &Path, network: Network) -> anyhow::Result<Params> {
    let file = dir.join(CHALLENGE_FILE);
    if network != Network::Signet || !file.exists() {
        return Ok(Params::new(network));
    }
    let unusable = || format!("{} holds no script in hex", file.display());
    let text = fs::read_to_string(&file).with_context(unusable)?;
    Ok(Params::signet(ScriptBuf::from_hex(text.trim()).with_context(unusable)?))
}

/// [`params`] of a folder in which a signet with this challenge is to run, the public one without; the folder keeps it.
///
/// # Errors
/// When the network is no signet, or the folder holds another one's chain.
pub(crate) fn params_of_run(dir: &Path, network: Network, challenge: Option<&ScriptBuf>) -> anyhow::Result<Params> {
    let kept = params(dir, network)?;
    let wanted = match challenge {
        Some(_) if network != Network::Signet => bail!("--signet-challenge is for signet only"),
        Some(challenge) => Params::signet(challenge.clone()),
        None => Params::new(network),
    };
    if kept.signet_challenge == wanted.signet_challenge {
        return Ok(kept);
    }
    if dir.join("blocks").exists() {
        let held = kept.signet_challenge.unwrap_or_default();
        bail!(
            "{} holds the chain of the signet with the challenge {held:x}; start with --signet-challenge {held:x}, or \
             choose another --data-dir",
            dir.display()
        );
    }
    let text = wanted.signet_challenge.as_ref().map(|script| format!("{script:x}\n"));
    fs::write(dir.join(CHALLENGE_FILE), text.unwrap_or_default())
        .with_context(|| format!("cannot write to the data directory {}", dir.display()))?;
    Ok(wanted)
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

    #[test]
    fn a_signet_folder_keeps_its_challenge() {
        let temp = tempfile::tempdir().unwrap();
        let own = ScriptBuf::from_bytes(vec![0x51]);
        let params_of = |challenge: Option<&ScriptBuf>| params_of_run(temp.path(), Network::Signet, challenge);
        assert_eq!(params_of(Some(&own)).unwrap().signet_challenge.unwrap(), own);
        fs::create_dir(temp.path().join("blocks")).unwrap();
        assert_eq!(
            params(temp.path(), Network::Signet).unwrap().signet_challenge.unwrap(),
            own
        );
        params_of(Some(&own)).unwrap();
        let error = params_of(None).unwrap_err().to_string();
        assert!(error.contains("start with --signet-challenge 51,"), "{error}");
        assert!(params_of_run(temp.path(), Network::Regtest, Some(&own)).is_err());
    }
}
