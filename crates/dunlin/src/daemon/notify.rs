//! A person's own commands: at each new tip, at a warning, when we are ready, before we stop.

use super::bitcoin::Bitcoin;
use crate::cli::RunArgs;

/// Runs a command with a shell and waits for its end.
pub(super) async fn run(command: String, option: &'static str) {
    let run = tokio::task::spawn_blocking(move || {
        let status = std::process::Command::new("sh").args(["-c", &command]).status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => tracing::warn!("the command of {option} ended with {status}: {command}"),
            Err(error) => tracing::warn!("the command of {option} cannot be run: {error}"),
        }
    });
    // It fails only when the process ends.
    let _ = run.await;
}

/// A text that a shell takes for one word.
fn quoted(text: &str) -> String {
    let safe = |c: &char| c.is_ascii_alphanumeric() || " .,;-_/:?@()".contains(*c);
    format!("'{}'", text.chars().filter(safe).collect::<String>())
}

/// Runs the commands of a run as their time comes; never returns.
pub(super) async fn watch(args: &RunArgs, bitcoin: Option<&Bitcoin>) {
    for command in &args.startup_notify {
        tokio::spawn(run(command.clone(), "--startup-notify"));
    }
    let Some(bitcoin) = bitcoin else {
        return std::future::pending().await;
    };
    let mut tip = bitcoin.tip.clone();
    let mut warned = None;
    loop {
        let warning = bitcoin.view.warning();
        if let (Some(command), Some(warning)) = (&args.alert_notify, &warning)
            && Some(warning) != warned.as_ref()
        {
            run(command.replace("%s", &quoted(warning)), "--alert-notify").await;
        }
        warned = warning;
        if tip.changed().await.is_err() {
            return std::future::pending().await;
        }
        let hash = tip.borrow_and_update().to_string();
        if let Some(command) = &args.block_notify {
            run(command.replace("%s", &hash), "--block-notify").await;
        }
    }
}
