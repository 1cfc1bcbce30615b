//! Prepares the chain that benches measure with and serves it from a real bitcoind until its input ends: for a
//! developer who measures one program by hand.

use anyhow::Result;
use dunlin_testkit::bench_chain::BenchChain;

fn main() -> Result<()> {
    let chain = BenchChain::ready()?;
    println!("{chain:#?}");
    let node = chain.serve()?;
    println!("served at {}; ends with its input", node.p2p());
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
