//! A real browser without a window: Chromium, driven by chromedriver through the WebDriver protocol.

use crate::child::{Child, bound_command};
use crate::ports::free_port;
use crate::rpc::agent;
use crate::setup;
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use base64::Engine as _;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// A page kept open; dropped, the browser and its driver are ended.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    base: String,
    agent: ureq::Agent,
    session: String,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser with a profile of its own and a window of the given size.
    ///
    /// # Errors
    /// When Chromium or its driver is missing or does not start.
    pub fn start(width: u32, height: u32) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("dunlin-browser-").tempdir()?;
        let port = free_port();
        let mut command = bound_command(setup::chromedriver()?);
        command.arg(format!("--port={port}"));
        let driver = Child::start("chromedriver", command, &folder.path().join("driver.log"))?;
        let base = format!("http://127.0.0.1:{port}");
        let mut browser = Browser {
            driver,
            base,
            agent: agent(Duration::from_secs(60)),
            session: String::new(),
            _folder: folder,
        };
        let profile = browser._folder.path().join("profile");
        wait_for("chromedriver answers", Duration::from_secs(30), || {
            if let Err(error) = browser.driver.check_alive() {
                return Some(Err(error));
            }
            browser
                .agent
                .get(format!("{}/status", browser.base))
                .call()
                .ok()
                .map(|_| Ok(()))
        })??;
        let options = json!({
            "binary": setup::chromium()?,
            "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
                "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--no-proxy-server", "--hide-scrollbars", format!("--window-size={width},{height}"),
                format!("--user-data-dir={}", profile.display()),
            ],
        });
        let wanted = json!({"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}});
        let made = browser.request("session", Some(&wanted))?;
        browser.session = made["sessionId"].as_str().context("a session id")?.to_owned();
        Ok(browser)
    }

    /// Asks the driver: with a body it is a POST, without one a GET.
    fn request(&self, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("{}/{path}", self.base);
        let answer = match body {
            Some(body) => self
                .agent
                .post(&url)
                .header("Content-Type", "application/json")
                .send(body.to_string().as_bytes()),
            None => self.agent.get(&url).call(),
        };
        let mut answer = answer.with_context(|| format!("chromedriver: {path}"))?;
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string()?;
        let value: Value = serde_json::from_str(&text).with_context(|| format!("chromedriver: {text}"))?;
        let value = value["value"].clone();
        if let Some(error) = value.get("error").and_then(Value::as_str) {
            bail!(
                "the browser says {error}: {}",
                value["message"].as_str().unwrap_or_default()
            );
        }
        Ok(value)
    }

    fn in_session(&self, path: &str, body: Option<&Value>) -> Result<Value> {
        self.request(&format!("session/{}/{path}", self.session), body)
    }

    /// Opens a page and waits until it is loaded.
    ///
    /// # Errors
    /// When the page cannot be had.
    pub fn open(&self, url: &str) -> Result<()> {
        self.in_session("url", Some(&json!({"url": url}))).map(|_| ())
    }

    /// Runs the body of a JavaScript function in the page: what it returns.
    ///
    /// # Errors
    /// When the script throws.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.in_session("execute/sync", Some(&json!({"script": script, "args": []})))
    }

    /// The text a person sees on the page.
    ///
    /// # Errors
    /// When the page is gone.
    pub fn text(&self) -> Result<String> {
        Ok(self
            .run("return document.body.innerText")?
            .as_str()
            .context("a page has text")?
            .to_owned())
    }

    /// Saves what the window shows as a PNG file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn screenshot(&self, path: &Path) -> Result<()> {
        let image = self.in_session("screenshot", None)?;
        let image = base64::engine::general_purpose::STANDARD.decode(image.as_str().context("an image")?)?;
        std::fs::write(path, image).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Ends the browser's own processes in good order; the driver itself is killed after it.
            let _ = self
                .agent
                .delete(format!("{}/session/{}", self.base, self.session))
                .call();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_page_runs_its_script_and_can_be_seen() {
        let browser = Browser::start(800, 600).unwrap();
        browser
            .open("data:text/html,<p id=a>one</p><script>a.textContent='two'</script>")
            .unwrap();
        assert_eq!(browser.text().unwrap(), "two");
        assert_eq!(browser.run("return 6 * 7").unwrap(), 42);
        assert!(browser.run("throw new Error('no')").is_err());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("page.png");
        browser.screenshot(&file).unwrap();
        assert!(std::fs::read(&file).unwrap().starts_with(b"\x89PNG"));
    }
}
