//! Help by topic, completions, man pages: all from the one command tree.

use clap::CommandFactory as _;
use seaworthy_model::finding::FindingCode;
use seaworthy_model::verdict::Assurance;

use crate::cli::args::{Cli, Completions, Help, Man};
use crate::exit::{Exit, TABLE};
use crate::failure::{Failure, Outcome};
use crate::output::Face;

/// `help [TOPIC]`.
pub(crate) fn run(face: &Face, arguments: &Help) -> Outcome {
    let topic: Vec<&str> = arguments.topic.iter().map(String::as_str).collect();
    match topic.as_slice() {
        ["exit-codes"] => {
            if face.json {
                let rows: Vec<_> = TABLE
                    .iter()
                    .map(|(exit, words)| serde_json::json!({ "code": exit.number(), "means": words }))
                    .collect();
                face.json(&serde_json::json!({ "schema": "seaworthy.exit-codes/1", "data": rows }))?;
            } else {
                for (exit, words) in TABLE {
                    face.data(format!("{:>4}  {words}", exit.number()))?;
                }
            }
        }
        ["findings"] => {
            for code in FindingCode::ALL {
                face.data(format!(
                    "{:<15} {}\n{:<15} → {}",
                    code.as_str(),
                    code.meaning(),
                    "",
                    code.remedy()
                ))?;
            }
        }
        ["levels"] => {
            for level in Assurance::ALL {
                face.data(level.to_string())?;
            }
        }
        [] => face.data(Cli::command().render_long_help().to_string())?,
        verbs => {
            let mut command = Cli::command();
            for verb in verbs {
                command = command.find_subcommand(verb).cloned().ok_or_else(|| {
                    Failure::new(
                        Exit::Usage,
                        format!("there is no verb or topic `{}`", crate::failure::printable(verb)),
                    )
                    .hint("seaworthy help")
                })?;
            }
            face.data(command.render_long_help().to_string())?;
        }
    }
    Ok(Exit::Ok)
}

/// `completions SHELL`.
pub(crate) fn completions(face: &Face, arguments: &Completions) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "seaworthy", &mut text);
    face.data(String::from_utf8_lossy(&text).trim_end())?;
    Ok(Exit::Ok)
}

/// `man [DIRECTORY]`.
pub(crate) fn man(cli: &Cli, face: &Face, arguments: &Man) -> Outcome {
    let failed = |error: std::io::Error| Failure::because(Exit::Unexpected, "write man pages", &error);
    match &arguments.directory {
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text).map_err(failed)?;
            face.data(String::from_utf8_lossy(&text).trim_end())?;
        }
        Some(directory) if cli.global.dry_run => {
            face.say(format!("would write the man pages to {}", directory.display()))?;
        }
        Some(directory) => {
            clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
            face.say(format!("wrote the man pages to {}", directory.display()))?;
        }
    }
    Ok(Exit::Ok)
}
