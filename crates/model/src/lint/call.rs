//! Who is called with what: programs behind `sudo`, `env`, `ssh`, containers and the like, and their options.

use std::ops::Range;

use super::region::Region;
use super::shell::{Pipeline, Redirect, Simple, Then, Word, parse};

/// Most wrappers that are taken off one command, e.g. `sudo nice docker exec db`.
const WRAPPERS_MAX: usize = 8;

/// Deepest script in an argument of a command of a script: `ssh host "sudo bash -c '…'"`.
const SCRIPTS_MAX: usize = 4;

/// One call of a program, whatever stands around it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// The program's name without its directory.
    pub(super) program: String,
    /// Where the program's name stands.
    pub(super) program_span: Range<usize>,
    /// What follows the program's name.
    pub(super) words: Vec<Word>,
    /// `NAME=value` before it.
    pub(super) assignments: Vec<Word>,
    /// Redirections.
    pub(super) redirects: Vec<Redirect>,
    /// Number of its pipeline in the script.
    pub(super) pipeline: usize,
    /// Its place in the pipeline.
    pub(super) stage: usize,
    /// Stages of the pipeline.
    pub(super) stages: usize,
    /// What stands behind the pipeline.
    pub(super) then: Then,
    /// Whether its exit code is asked for.
    pub(super) is_condition: bool,
    /// Whether it stands in a substitution.
    pub(super) is_nested: bool,
    /// What it stands behind, outermost first: `ssh`, `docker`.
    pub(super) behind: Vec<&'static str>,
}

impl Call {
    /// From the program's name to the last word.
    pub(super) fn span(&self) -> Range<usize> {
        let end = self.words.iter().map(|word| word.span.end).max().unwrap_or(self.program_span.end);
        self.program_span.start..end.max(self.program_span.end)
    }

    /// Whether it is one of these programs.
    pub(super) fn is(&self, programs: &[&str]) -> bool {
        programs.contains(&self.program.as_str())
    }

    /// Whether the first words are these, options between them left aside.
    pub(super) fn says(&self, words: &[&str]) -> bool {
        let mut plain =
            self.words.iter().map(|word| word.text.as_str()).filter(|word| !word.starts_with('-'));
        words.iter().all(|wanted| plain.next() == Some(*wanted))
    }

    /// The first word that begins with one of these, e.g. `--opt` in `--opt=value`.
    pub(super) fn option(&self, names: &[&str]) -> Option<&Word> {
        self.words.iter().take_while(|word| word.text != "--").find(|word| {
            names.iter().any(|name| {
                word.text == *name || word.text.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
            })
        })
    }

    /// Whether one of these options is there.
    pub(super) fn has(&self, names: &[&str]) -> bool {
        self.option(names).is_some()
    }

    /// Whether a cluster of short options holds `flag`; `valued` are the program's short options that take a value, after
    /// which a cluster is no cluster.
    pub(super) fn has_short(&self, flag: char, valued: &str) -> bool {
        self.short(flag, valued).is_some()
    }

    fn short(&self, flag: char, valued: &str) -> Option<(&Word, String)> {
        let mut is_value = false;
        for (index, word) in self.words.iter().enumerate() {
            if std::mem::take(&mut is_value) {
                continue;
            }
            if word.text == "--" {
                return None;
            }
            let Some(cluster) = word.text.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else {
                continue;
            };
            for (at, letter) in cluster.char_indices() {
                let rest = cluster.get(at + letter.len_utf8()..).unwrap_or_default();
                if letter == flag {
                    let value = if !valued.contains(flag) {
                        String::new()
                    } else if rest.is_empty() {
                        self.words.get(index + 1).map(|word| word.text.clone()).unwrap_or_default()
                    } else {
                        rest.to_owned()
                    };
                    return Some((word, value));
                }
                if valued.contains(letter) {
                    is_value = rest.is_empty();
                    break;
                }
            }
        }
        None
    }

    /// The value of an option, long (`--opt value`, `--opt=value`) or short (`-o value`, `-ovalue`).
    pub(super) fn value(&self, long: &[&str], short: Option<char>, valued: &str) -> Option<String> {
        for name in long {
            if let Some(index) = self.words.iter().position(|word| {
                word.text == *name || word.text.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
            }) {
                let word = self.words.get(index)?;
                return match word.text.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                    Some(value) => Some(value.to_owned()),
                    None => self.words.get(index + 1).map(|word| word.text.clone()),
                };
            }
        }
        short.and_then(|short| self.short(short, valued)).map(|(_, value)| value)
    }

    /// Words that are no options and no values of the options named in `valued` (short letters) and `long`.
    pub(super) fn operands(&self, valued: &str, long: &[&str]) -> Vec<&Word> {
        let mut operands = Vec::new();
        let mut is_value = false;
        let mut is_over = false;
        for word in &self.words {
            if std::mem::take(&mut is_value) {
                continue;
            }
            if is_over || !word.text.starts_with('-') || word.text == "-" {
                operands.push(word);
            } else if word.text == "--" {
                is_over = true;
            } else if word.text.starts_with("--") {
                is_value = long.contains(&word.text.as_str());
            } else {
                let letters = word.text.get(1..).unwrap_or_default();
                is_value = letters
                    .char_indices()
                    .find(|(_, letter)| valued.contains(*letter))
                    .is_some_and(|(at, letter)| at + letter.len_utf8() == letters.len());
            }
        }
        operands
    }

    /// Everything it is told, for a search: words, redirections, assignments.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.words
            .iter()
            .chain(self.redirects.iter().map(|redirect| &redirect.target))
            .chain(&self.assignments)
            .map(|word| word.text.as_str())
    }

    /// Where its standard output goes, if into a file.
    pub(super) fn output(&self) -> Option<&Redirect> {
        self.redirects.iter().find(|redirect| {
            matches!(redirect.operator, ">" | ">|" | "&>") && redirect.descriptor.unwrap_or(1) == 1
        })
    }

    /// Where its standard input comes from, if from a file.
    pub(super) fn input(&self) -> Option<&Word> {
        self.redirects.iter().find(|redirect| redirect.operator == "<").map(|redirect| &redirect.target)
    }
}

/// All calls of a region, in the order in which they stand; those of inner scripts after what starts them.
pub(super) fn calls(region: &Region) -> Vec<Call> {
    let mut found = Vec::new();
    collect(region, &[], 0, &mut found);
    found
}

fn collect(region: &Region, behind: &[&'static str], depth: usize, found: &mut Vec<Call>) {
    for (number, pipeline) in parse(region).into_iter().enumerate() {
        let stages = pipeline.stages.len();
        for (stage, simple) in pipeline.stages.iter().enumerate() {
            let here = simple.here.clone();
            let Some(mut call) = resolve(simple) else { continue };
            call.pipeline = number;
            (call.stage, call.stages) = (stage, stages);
            place(&mut call, &pipeline);
            call.behind.splice(0..0, behind.iter().copied());
            unwrap(call, region, here, depth, found);
        }
    }
}

fn place(call: &mut Call, pipeline: &Pipeline) {
    call.then = pipeline.then;
    call.is_condition = pipeline.is_condition;
    call.is_nested = pipeline.is_nested;
}

fn resolve(simple: &Simple) -> Option<Call> {
    let mut words = simple.words.iter();
    let mut assignments = Vec::new();
    let program = loop {
        let word = words.next()?;
        if is_assignment(&word.text) {
            assignments.push(word.clone());
        } else {
            break word;
        }
    };
    Some(Call {
        program: base_name(&program.text),
        program_span: program.span.clone(),
        words: words.cloned().collect(),
        assignments,
        redirects: simple.redirects.clone(),
        pipeline: 0,
        stage: 0,
        stages: 1,
        then: Then::Next,
        is_condition: false,
        is_nested: false,
        behind: Vec::new(),
    })
}

fn base_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).trim_start_matches(['@', '-', '+']).to_owned()
}

/// Whether a word is `NAME=value`.
pub(super) fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        let name = name.strip_suffix('+').unwrap_or(name);
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// Takes wrappers off a call and files what is left; a script in an argument is read in its turn.
fn unwrap(mut call: Call, region: &Region, here: Option<Range<usize>>, depth: usize, found: &mut Vec<Call>) {
    for _ in 0..WRAPPERS_MAX {
        match call.program.as_str() {
            "ssh" | "mosh" => {
                let skip = operand_after(&call.words, "bcDEeFIiJLlmOopQRSWwB", &[], 1);
                let rest: Vec<Word> = call.words.get(skip..).unwrap_or_default().to_vec();
                found.push(call.clone());
                if !rest.is_empty() {
                    script_of(&rest, "ssh", &call, depth, found);
                } else if let Some(body) = here {
                    script_in(region, body, "ssh", &call, depth, found);
                }
                return;
            }
            "sh" | "bash" | "dash" | "zsh" | "ksh" | "su" | "runuser" => {
                let is_login = matches!(call.program.as_str(), "su" | "runuser");
                let flag = call.words.iter().position(|word| {
                    word.text == "--command"
                        || (word.text.starts_with('-')
                            && !word.text.starts_with("--")
                            && word.text.ends_with('c'))
                });
                if let Some(script) = flag.and_then(|flag| call.words.get(flag + 1)).cloned() {
                    script_of(std::slice::from_ref(&script), "sh", &call, depth, found);
                    return;
                }
                if is_login {
                    // `runuser -u postgres -- pg_dump`
                    let Some(dashes) = call.words.iter().position(|word| word.text == "--") else { break };
                    if !shift(&mut call, dashes + 1) {
                        break;
                    }
                    continue;
                }
                if let Some(body) =
                    here.clone().filter(|_| call.words.iter().all(|word| word.text.starts_with('-')))
                {
                    script_in(region, body, "sh", &call, depth, found);
                    return;
                }
                // `bash scripts/restore.sh now`: the script is who is called.
                let skip = operand_after(&call.words, "oO", &["--rcfile", "--init-file"], 0);
                if !shift(&mut call, skip) {
                    break;
                }
                break;
            }
            "docker" | "podman" | "nerdctl" | "docker-compose" | "podman-compose" | "kubectl" | "oc" => {
                let Some(skip) = inside_container(&call) else { break };
                let mut inner = call.clone();
                let behind =
                    if matches!(call.program.as_str(), "kubectl" | "oc") { "kubectl" } else { "docker" };
                found.push(call);
                if !shift(&mut inner, skip) {
                    return;
                }
                inner.behind.push(behind);
                call = inner;
            }
            program => {
                let Some(skip) = wrapped(program, &call.words) else { break };
                let assignments: Vec<Word> =
                    call.words.iter().take(skip).filter(|word| is_assignment(&word.text)).cloned().collect();
                if program == "flock" && call.words.get(skip).is_some_and(|word| word.text == "-c") {
                    if let Some(script) = call.words.get(skip + 1).cloned() {
                        script_of(std::slice::from_ref(&script), "sh", &call, depth, found);
                    }
                    return;
                }
                call.assignments.extend(assignments);
                if !shift(&mut call, skip) {
                    return;
                }
            }
        }
    }
    found.push(call);
}

/// Makes the word of this index the program.
fn shift(call: &mut Call, index: usize) -> bool {
    if index >= call.words.len() {
        return false;
    }
    let rest = call.words.split_off(index + 1);
    let Some(program) = call.words.pop() else { return false };
    call.program = base_name(&program.text);
    call.program_span = program.span;
    call.words = rest;
    true
}

/// The index behind the first `count` operands, options and their values left aside.
fn operand_after(words: &[Word], valued: &str, long: &[&str], count: usize) -> usize {
    let mut left = count;
    let mut index = 0;
    while let Some(word) = words.get(index) {
        let text = word.text.as_str();
        if text == "--" {
            if left == 0 {
                return index + 1;
            }
        } else if let Some(name) = text.strip_prefix("--").filter(|name| !name.is_empty()) {
            if !name.contains('=') && long.contains(&text) {
                index += 1;
            }
        } else if let Some(letters) = text.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            let value = letters.char_indices().find(|(_, letter)| valued.contains(*letter));
            if value.is_some_and(|(at, letter)| at + letter.len_utf8() == letters.len()) {
                index += 1;
            }
        } else if left == 0 {
            return index;
        } else {
            left -= 1;
        }
        index += 1;
    }
    index
}

/// Where the real program stands behind a program that only starts another one.
fn wrapped(program: &str, words: &[Word]) -> Option<usize> {
    let (valued, long, operands): (&str, &[&str], usize) = match program {
        "sudo" | "doas" => ("ugCpDRTh", &["--user", "--group", "--host", "--chdir"], 0),
        "env" => ("uCS", &["--unset", "--chdir"], 0),
        "time" | "nohup" | "exec" | "command" | "builtin" | "setsid" | "chronic" | "tini" | "dumb-init" => {
            ("ofa", &[], 0)
        }
        "nice" => ("n", &["--adjustment"], 0),
        "ionice" => ("cnp", &["--class", "--classdata"], 0),
        "timeout" => ("ks", &["--kill-after", "--signal"], 1),
        "stdbuf" => ("ioe", &[], 0),
        "flock" => ("wE", &["--timeout", "--wait", "--conflict-exit-code"], 1),
        "gosu" | "su-exec" | "chpst" => ("u", &[], 1),
        "xargs" => {
            ("aEIiLlnPsd", &["--max-args", "--max-procs", "--replace", "--delimiter", "--arg-file"], 0)
        }
        "systemd-run" | "systemd-inhibit" => {
            ("pEt", &["--property", "--unit", "--setenv", "--uid", "--gid", "--what", "--why", "--who"], 0)
        }
        "watch" => ("n", &["--interval"], 0),
        _ => return None,
    };
    let mut index = operand_after(words, valued, long, operands);
    while matches!(program, "env" | "sudo" | "doas")
        && words.get(index).is_some_and(|word| is_assignment(&word.text))
    {
        index += 1;
    }
    Some(index)
}

/// Where the program stands that a container runs; `None` where the words do not start one.
fn inside_container(call: &Call) -> Option<usize> {
    let is_kubernetes = matches!(call.program.as_str(), "kubectl" | "oc");
    if is_kubernetes {
        let verb = call.words.iter().position(|word| matches!(word.text.as_str(), "exec" | "run"))?;
        let dashes = call.words.iter().skip(verb).position(|word| word.text == "--")?;
        return Some(verb + dashes + 1);
    }
    let valued = "eufwvplmnhct";
    let long: &[&str] = &[
        "--env",
        "--user",
        "--workdir",
        "--env-file",
        "--volume",
        "--name",
        "--network",
        "--mount",
        "--file",
        "--project-name",
        "--profile",
        "--volumes-from",
        "--entrypoint",
        "--platform",
        "--memory",
        "--cpus",
        "--label",
        "--index",
        "--host",
        "--context",
        "--publish",
        "--hostname",
    ];
    // `-t` and `-i` take no value; `-it` is one word of both.
    let valued: String = valued.chars().filter(|letter| !matches!(letter, 't' | 'm' | 'c')).collect();
    let verb = call.words.iter().position(|word| matches!(word.text.as_str(), "exec" | "run"))?;
    // An operand before the verb that is none of these makes it another command: `docker logs run`.
    let before = call.words.get(..verb)?;
    if !before.iter().all(|word| {
        word.text.starts_with('-')
            || matches!(word.text.as_str(), "compose" | "container")
            || word.text.contains(['/', '.'])
    }) {
        return None;
    }
    let rest = call.words.get(verb + 1..)?;
    let skip = operand_after(rest, &valued, long, 1);
    (skip < rest.len()).then_some(verb + 1 + skip)
}

/// Reads words as a script of their own, as `ssh` and `sh -c` do.
fn script_of(words: &[Word], behind: &'static str, outer: &Call, depth: usize, found: &mut Vec<Call>) {
    let mut inner = Region::default();
    for word in words {
        inner.quoted(word);
        inner.separate(' ');
    }
    follow(&inner, behind, outer, depth, found);
}

fn script_in(
    region: &Region,
    body: Range<usize>,
    behind: &'static str,
    outer: &Call,
    depth: usize,
    found: &mut Vec<Call>,
) {
    follow(&region.part(body), behind, outer, depth, found);
}

fn follow(inner: &Region, behind: &'static str, outer: &Call, depth: usize, found: &mut Vec<Call>) {
    if depth >= SCRIPTS_MAX {
        return;
    }
    let first = found.len();
    let mut chain = outer.behind.clone();
    if behind == "ssh" {
        chain.push(behind);
    }
    let mut own = Vec::new();
    collect(inner, &chain, depth + 1, &mut own);
    let base = outer.pipeline + 1;
    // Each inner script has pipelines of its own; 1,000 are more than any has, so that numbers do not meet.
    for mut call in own {
        call.pipeline = call.pipeline.saturating_add(base.saturating_mul(1000));
        found.push(call);
    }
    let is_one = found.len() == first + 1;
    if let (true, Some(call)) = (is_one, found.last_mut()) {
        // A script of one command stands in the outer pipeline: what is before it feeds it, what is behind it reads it.
        (call.pipeline, call.stage, call.stages) = (outer.pipeline, outer.stage, outer.stages);
        call.then = outer.then;
        call.redirects.extend(outer.redirects.iter().cloned());
    }
}
