//! Where a peer that knows nobody begins: names under which others publish addresses (DNS seeds), and addresses of
//! long-lived nodes for when that gives nothing.

use dunlin_chain::Network;
use dunlin_peer::{Host, NetAddr};

/// The seeds of a network, those that Bitcoin Core asks. Each answers with peers that offer the services whose bits the
/// prefix `xBITS.` names in hexadecimal.
pub fn dns_seeds(network: Network) -> &'static [&'static str] {
    match network {
        Network::Mainnet => &[
            "dnsseed.bluematt.me",
            "seed.bitcoin.jonasschnelli.ch",
            "seed.btc.petertodd.net",
            "seed.bitcoin.sprovoost.nl",
            "dnsseed.emzy.de",
            "seed.bitcoin.wiz.biz",
            "seed.mainnet.achownodes.xyz",
        ],
        Network::Testnet3 => &[
            "testnet-seed.bitcoin.jonasschnelli.ch",
            "seed.tbtc.petertodd.net",
            "seed.testnet.bitcoin.sprovoost.nl",
            "testnet-seed.bluematt.me",
            "seed.testnet.achownodes.xyz",
        ],
        Network::Testnet4 => &["seed.testnet4.bitcoin.sprovoost.nl", "seed.testnet4.wiz.biz"],
        Network::Signet => &["seed.signet.bitcoin.sprovoost.nl", "seed.signet.achownodes.xyz"],
        Network::Regtest => &[],
    }
}

/// Addresses of nodes that have been there for long; `seeds/README.md` says where they come from.
pub fn fixed_seeds(network: Network) -> Vec<NetAddr> {
    decode(match network {
        Network::Mainnet => include_bytes!("seeds/mainnet.bin"),
        Network::Testnet3 => include_bytes!("seeds/testnet3.bin"),
        Network::Testnet4 => include_bytes!("seeds/testnet4.bin"),
        Network::Signet => include_bytes!("seeds/signet.bin"),
        Network::Regtest => &[],
    })
}

fn decode(mut bytes: &[u8]) -> Vec<NetAddr> {
    let mut seeds = Vec::new();
    while let [network, length, rest @ ..] = bytes {
        let Some((host, [a, b, rest @ ..])) = rest.split_at_checked((*length).into()) else {
            break;
        };
        bytes = rest;
        if let Ok(Some(host)) = Host::from_bytes(*network, host) {
            let port = u16::from_be_bytes([*a, *b]);
            seeds.push(NetAddr { host, port });
        }
    }
    seeds
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dunlin_peer::NetClass;

    use super::*;

    #[test]
    fn every_public_network_has_seeds_on_hidden_networks_too() {
        for network in Network::ALL {
            let seeds = fixed_seeds(network);
            let classes: BTreeSet<NetClass> = seeds.iter().map(|addr| addr.host.class()).collect();
            assert!(seeds.iter().all(|addr| addr.host.is_public()), "{network:?}");
            assert_eq!(seeds.is_empty(), network == Network::Regtest);
            if network == Network::Mainnet {
                assert_eq!(classes.len(), 5);
                assert!(seeds.len() > 1_000, "{}", seeds.len());
            }
        }
        // Whole to the last byte.
        let bytes = include_bytes!("seeds/mainnet.bin");
        let length = |addr: &NetAddr| addr.host.with_bytes(|_, host| host.len() + 4);
        assert_eq!(
            fixed_seeds(Network::Mainnet).iter().map(length).sum::<usize>(),
            bytes.len()
        );
    }
}
