//! Keys from a program, such as one that asks a modem.

use std::{process::Stdio, time::Duration};

use akma::AKid;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{io::AsyncReadExt, process::Command};
use zeroize::Zeroizing;

use super::{AkmaMaterial, KeySource, KeySourceError};

/// Longest output read from a key command, in octets; a command that prints more is stopped.
pub const COMMAND_OUTPUT_OCTETS_MAX: usize = 8_192;

/// Environment variable that tells the command which A-KID the server refused. Unset: whatever keys are at hand will do.
pub const REFUSED_VARIABLE: &str = "MSGIN5G_REFUSED_A_KID";

/// Runs a program that prints `{"a_kid":"…","k_akma":"64 hex digits"}`, each time keys are asked for.
///
/// The program is started directly, not through a shell. It ends with exit code 0, within the time-out, and prints
/// nothing else to standard output; what it prints to standard error is passed on.
#[derive(Clone, Debug)]
pub struct CommandKeySource {
    program: String,
    arguments: Vec<String>,
    timeout: Duration,
}

impl CommandKeySource {
    /// A source that runs `program` with `arguments`, for at most `timeout`.
    pub fn new(program: impl Into<String>, arguments: Vec<String>, timeout: Duration) -> Self {
        Self { program: program.into(), arguments, timeout }
    }

    async fn run(&self, refused: Option<&AKid>) -> Result<AkmaMaterial, KeySourceError> {
        let failed = |detail: String| KeySourceError::Command { program: self.program.clone(), detail };
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        match refused {
            Some(a_kid) => command.env(REFUSED_VARIABLE, a_kid.as_str()),
            None => command.env_remove(REFUSED_VARIABLE),
        };
        let mut child = command.spawn().map_err(|error| failed(format!("cannot be started: {error}")))?;
        let mut output = Zeroizing::new(Vec::with_capacity(COMMAND_OUTPUT_OCTETS_MAX + 1));
        if let Some(stdout) = child.stdout.take() {
            let mut stdout = stdout.take(COMMAND_OUTPUT_OCTETS_MAX as u64 + 1);
            stdout.read_to_end(&mut output).await.map_err(|error| failed(format!("cannot be read from: {error}")))?;
        }
        if output.len() > COMMAND_OUTPUT_OCTETS_MAX {
            return Err(failed(format!("printed more than {COMMAND_OUTPUT_OCTETS_MAX} octets")));
        }
        let status = child.wait().await.map_err(|error| failed(format!("cannot be waited for: {error}")))?;
        if !status.success() {
            return Err(failed(format!("ended with {status}")));
        }
        let material = AkmaMaterial::from_json(&output, &self.program)?;
        if refused == Some(&material.a_kid) {
            return Err(KeySourceError::NothingNewer { origin: self.program.clone() });
        }
        Ok(material)
    }
}

impl KeySource for CommandKeySource {
    fn obtain<'a>(&'a self, refused: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>> {
        async move {
            // Dropping the future at the time-out kills the command.
            tokio::time::timeout(self.timeout, self.run(refused)).await.unwrap_or_else(|_| {
                let detail = format!("did not end within {:?}", self.timeout);
                Err(KeySourceError::Command { program: self.program.clone(), detail })
            })
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shell(script: &str) -> CommandKeySource {
        CommandKeySource::new("sh", vec!["-c".into(), script.into()], Duration::from_secs(20))
    }

    fn printing(name: &str) -> String {
        format!(r#"printf '%s' '{{"a_kid":"{name}@realm.example","k_akma":"{}"}}'"#, "cd".repeat(32))
    }

    #[tokio::test]
    async fn the_command_is_told_which_a_kid_was_refused() {
        let source = shell(&format!(
            r#"if [ "${REFUSED_VARIABLE}" = "0.old@realm.example" ]; then {}; else {}; fi"#,
            printing("0.new"),
            printing("0.old"),
        ));
        let old = source.obtain(None).await.unwrap().a_kid;
        assert_eq!(old.as_str(), "0.old@realm.example");
        assert_eq!(source.obtain(Some(&old)).await.unwrap().a_kid.as_str(), "0.new@realm.example");
    }

    #[tokio::test]
    async fn a_command_that_knows_nothing_newer_is_an_error() {
        let source = shell(&printing("0.old"));
        let old = source.obtain(None).await.unwrap().a_kid;
        assert!(matches!(source.obtain(Some(&old)).await, Err(KeySourceError::NothingNewer { .. })));
    }

    #[tokio::test]
    async fn failing_missing_chattering_and_hanging_commands_are_errors() {
        let missing = CommandKeySource::new("/nonexistent/helper", Vec::new(), Duration::from_secs(20));
        for (source, expected) in [
            (shell("exit 3"), "ended with"),
            (missing, "cannot be started"),
            (shell("head -c 100000 /dev/zero"), "printed more than"),
            (CommandKeySource::new("sleep", vec!["600".into()], Duration::from_millis(50)), "did not end within"),
        ] {
            let error = source.obtain(None).await.unwrap_err();
            assert!(matches!(error, KeySourceError::Command { .. }), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        let error = shell("echo nonsense").obtain(None).await.unwrap_err();
        assert!(matches!(error, KeySourceError::Malformed { .. }), "{error}");
    }
}
