//! Finds in a text what is a command, what is a schedule and what is said in words, by the kind of the text.

use std::cell::OnceCell;
use std::ops::Range;

use super::call::{Call, calls};
use super::region::Region;
use super::words::is_refusal;
use crate::config::SourceText;

/// How a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Markdown, and plain text that may hold some: words, tables, blocks of code.
    Prose,
    /// A shell script.
    Shell,
    /// A crontab.
    Cron,
    /// YAML: workflows, compose files, manifests.
    Yaml,
    /// `name = value`: environment files, TOML, INI, PostgreSQL's own.
    Settings,
    /// A unit of systemd.
    Unit,
    /// Terraform.
    Terraform,
    /// A makefile.
    Make,
}

impl Kind {
    /// The kind that a file's name says; `None` where the name says nothing, and for what is not read.
    #[must_use]
    pub fn of_name(path: &str) -> Option<Self> {
        let path = path.to_ascii_lowercase();
        let name = path.rsplit('/').next().unwrap_or_default();
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        if name.starts_with("crontab") || path.contains("/cron.d/") || path.contains("/crontabs/") {
            return Some(Self::Cron);
        }
        if name.starts_with("makefile") || name == "gnumakefile" {
            return Some(Self::Make);
        }
        if name == ".env" || name.starts_with(".env.") || name.ends_with(".env") {
            return Some(Self::Settings);
        }
        Some(match extension {
            "md" | "markdown" | "mdx" | "txt" | "rst" | "adoc" | "org" => Self::Prose,
            "sh" | "bash" | "zsh" | "ksh" => Self::Shell,
            "cron" | "crontab" => Self::Cron,
            "yml" | "yaml" => Self::Yaml,
            "conf" | "cnf" | "ini" | "toml" | "cfg" | "properties" => Self::Settings,
            "service" | "timer" => Self::Unit,
            "tf" | "tfvars" | "hcl" => Self::Terraform,
            "mk" => Self::Make,
            _ => return None,
        })
    }

    /// The kind that a file's first line says; `None` where it says nothing.
    #[must_use]
    pub fn of_content(text: &str) -> Option<Self> {
        let first = text.lines().next()?.strip_prefix("#!")?;
        ["sh", "bash", "dash", "zsh", "ksh"]
            .iter()
            .any(|shell| first.split(['/', ' ']).any(|part| part.trim() == *shell))
            .then_some(Self::Shell)
    }

    /// The kind of a text by its name, else by its first line, else [`Kind::Prose`].
    fn of(text: &SourceText) -> Self {
        // A shebang outranks a name: `backup.txt` may be a script, and `backup` has no extension.
        Self::of_content(&text.text).or_else(|| Self::of_name(&text.name)).unwrap_or(Self::Prose)
    }
}

/// Where a script stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A file of its own, or a makefile.
    File,
    /// A line of a crontab.
    Cron,
    /// A step of a workflow, a command of a container or of a unit.
    Step,
    /// A block of code in a document.
    Block,
    /// A command in a sentence.
    Inline,
}

impl Origin {
    /// Whether nobody sits beside it when it runs, so that only its exit code is heard.
    pub(super) fn is_unattended(self) -> bool {
        matches!(self, Self::File | Self::Cron | Self::Step)
    }
}

/// Commands that run one after another.
#[derive(Debug)]
pub(super) struct Script {
    /// Where it stands.
    pub(super) origin: Origin,
    /// Its calls in order.
    pub(super) calls: Vec<Call>,
    /// From its first to its last byte in the document.
    pub(super) span: Range<usize>,
    /// The heading that it stands under, in lower case.
    pub(super) heading: String,
    /// Whether a failure inside a pipe is a failure of the pipe.
    pub(super) has_pipefail: bool,
    /// Whether it says of itself that it is a script of its own.
    pub(super) has_shebang: bool,
    /// The number of its first call that stops what writes; asked by many calls, looked for once.
    pub(super) first_stop: OnceCell<Option<usize>>,
}

/// When something runs.
#[derive(Debug)]
pub(super) struct Job {
    /// Where the schedule stands.
    pub(super) span: Range<usize>,
    /// Minute, hour, day of the month, month, day of the week.
    pub(super) fields: [String; 5],
    /// Its zone, where it says one.
    pub(super) zone: Option<String>,
    /// What it runs, as an index of the scripts.
    pub(super) script: Option<usize>,
}

/// One line.
#[derive(Debug)]
pub(super) struct Line {
    /// Where it stands, without its end.
    pub(super) span: Range<usize>,
    /// Whether it stands in a block of code.
    pub(super) is_code: bool,
    /// The line of the heading that it stands under, or its own.
    pub(super) heading: Option<usize>,
    /// Whether it is a heading.
    pub(super) is_heading: bool,
    /// Whether it speaks against what it mentions; asked by many commands of a long line, answered once.
    refuses: OnceCell<bool>,
}

/// A text that has been read.
#[derive(Debug)]
pub(super) struct Document<'t> {
    pub(super) kind: Kind,
    pub(super) name: &'t str,
    pub(super) text: &'t str,
    /// The same in lower case (of ASCII), byte for byte at the same place.
    pub(super) lower: String,
    pub(super) lines: Vec<Line>,
    pub(super) scripts: Vec<Script>,
    pub(super) jobs: Vec<Job>,
}

impl<'t> Document<'t> {
    /// Reads a text.
    pub(super) fn read(source: &'t SourceText) -> Self {
        let kind = Kind::of(source);
        let mut document = Self {
            kind,
            name: &source.name,
            text: &source.text,
            lower: source.text.to_ascii_lowercase(),
            lines: lines(&source.text),
            scripts: Vec::new(),
            jobs: Vec::new(),
        };
        let all = 0..document.lines.len();
        match kind {
            Kind::Prose => document.prose(),
            Kind::Shell => document.shell(all, Origin::File),
            Kind::Make => document.make(),
            Kind::Cron => document.cron(all),
            Kind::Yaml => document.yaml(all),
            Kind::Unit => document.unit(),
            Kind::Settings | Kind::Terraform => {}
        }
        document
    }

    /// A line as it stands.
    pub(super) fn line(&self, index: usize) -> &'t str {
        self.lines.get(index).and_then(|line| self.text.get(line.span.clone())).unwrap_or_default()
    }

    /// A line in lower case.
    pub(super) fn lower(&self, index: usize) -> &str {
        self.lines.get(index).and_then(|line| self.lower.get(line.span.clone())).unwrap_or_default()
    }

    /// Whether a line speaks against what it mentions.
    pub(super) fn refuses(&self, index: usize) -> bool {
        self.lines.get(index).is_some_and(|line| *line.refuses.get_or_init(|| is_refusal(self.lower(index))))
    }

    /// Lines outside of code, with their number.
    pub(super) fn prose_lines(&self) -> impl Iterator<Item = usize> {
        let is_prose = self.kind == Kind::Prose;
        self.lines
            .iter()
            .enumerate()
            .filter(move |(_, line)| is_prose && !line.is_code)
            .map(|(index, _)| index)
    }

    /// The heading over a line, in lower case.
    pub(super) fn heading(&self, index: usize) -> &str {
        self.lines.get(index).and_then(|line| line.heading).map_or("", |heading| self.lower(heading))
    }

    /// The line that holds a place.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|line| line.span.start <= at).saturating_sub(1)
    }

    /// Whether the text, in lower case, says one of these anywhere.
    pub(super) fn says(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.lower.contains(word))
    }

    fn add(&mut self, region: &Region, origin: Origin, span: Range<usize>, line: usize) {
        let calls = calls(region);
        if calls.is_empty() {
            return;
        }
        let text = region.text();
        let has_pipefail = text.contains("pipefail");
        let has_shebang = text.starts_with("#!");
        // 200: longer than any heading; each script holds its own.
        let heading: String = self.heading(line).chars().take(200).collect();
        self.scripts.push(Script {
            origin,
            calls,
            span,
            heading,
            has_pipefail,
            has_shebang,
            first_stop: OnceCell::new(),
        });
    }

    /// Lines `range` as one script.
    fn shell(&mut self, range: Range<usize>, origin: Origin) {
        let mut region = Region::default();
        for index in range.clone() {
            if let Some(line) = self.lines.get(index) {
                region.push(self.text, line.span.clone());
                region.separate('\n');
            }
        }
        let span = self.span(&range);
        self.add(&region, origin, span, range.start);
    }

    fn span(&self, range: &Range<usize>) -> Range<usize> {
        let start = self.lines.get(range.start).map_or(0, |line| line.span.start);
        let end = range
            .end
            .checked_sub(1)
            .and_then(|last| self.lines.get(last))
            .map_or(start, |line| line.span.end);
        start..end.max(start)
    }

    fn make(&mut self) {
        let mut region = Region::default();
        for line in self
            .lines
            .iter()
            .filter(|line| self.text.get(line.span.clone()).is_some_and(|text| text.starts_with('\t')))
        {
            region.push(self.text, line.span.clone());
            region.separate('\n');
        }
        self.add(&region, Origin::File, 0..self.text.len(), 0);
    }

    fn unit(&mut self) {
        for index in 0..self.lines.len() {
            let text = self.line(index);
            let is_command = ["ExecStart=", "ExecStartPre=", "ExecStartPost=", "ExecStop="]
                .iter()
                .any(|key| text.starts_with(key));
            if !is_command {
                continue;
            }
            let Some(line) = self.lines.get(index).map(|line| line.span.clone()) else { continue };
            let start = line.start + text.find('=').map_or(0, |at| at + 1);
            let region = Region::of(self.text, start..line.end);
            self.add(&region, Origin::Step, start..line.end, index);
        }
    }

    /// Lines of a crontab.
    fn cron(&mut self, range: Range<usize>) {
        let mut zone = None;
        for index in range {
            let text = self.line(index);
            if let Some((name, value)) = text.split_once('=')
                && matches!(name.trim(), "CRON_TZ" | "TZ")
            {
                zone = Some(value.trim().trim_matches(['"', '\'']).to_owned());
            } else {
                self.cron_line(index, zone.clone());
            }
        }
    }

    /// Reads a line as one of a crontab; says whether it is one.
    fn cron_line(&mut self, index: usize, zone: Option<String>) -> bool {
        let text = self.line(index);
        let Some(base) = self.lines.get(index).map(|line| line.span.start) else { return false };
        let Some((fields, command)) = cron_fields(text) else { return false };
        let mut start = command;
        let rest = text.get(start..).unwrap_or_default();
        // A system's crontab names a user before the command.
        let mut words = rest.split_whitespace();
        if let (Some(user), Some(program)) = (words.next(), words.next())
            && user.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
            && !is_program(user)
            && (is_program(program.rsplit('/').next().unwrap_or_default()) || program.starts_with('/'))
        {
            start += rest.find(user).unwrap_or(0) + user.len();
        }
        let before = self.scripts.len();
        let region = Region::of(self.text, base + start..base + text.len());
        self.add(&region, Origin::Cron, base..base + text.len(), index);
        let script = (self.scripts.len() > before).then_some(before);
        self.jobs.push(Job { span: base..base + text.trim_end().len(), fields, zone, script });
        true
    }

    fn prose(&mut self) {
        let mut index = 0;
        let mut heading = None;
        let mut last_words: Option<usize> = None;
        while index < self.lines.len() {
            let text = self.line(index);
            if let Some(fence) = Fence::open(text) {
                let end = self.fence_end(index, &fence);
                for inside in index..(end + 1).min(self.lines.len()) {
                    if let Some(line) = self.lines.get_mut(inside) {
                        (line.is_code, line.heading) = (true, heading);
                    }
                }
                let is_counterexample = last_words.is_some_and(|line| is_counterexample(self.lower(line)));
                if !is_counterexample {
                    self.block(index + 1..end, &fence.language);
                }
                index = end + 1;
                continue;
            }
            let is_heading = is_heading(text);
            if is_heading {
                heading = Some(index);
            }
            if let Some(line) = self.lines.get_mut(index) {
                (line.heading, line.is_heading) = (heading, is_heading);
            }
            if text.trim().is_empty() {
                index += 1;
                continue;
            }
            let read = self.command_line(index, last_words);
            if read == 0 {
                self.inline_code(index);
                last_words = Some(index);
                index += 1;
            } else {
                for inside in index..index + read {
                    if let Some(line) = self.lines.get_mut(inside) {
                        line.heading = heading;
                    }
                }
                index += read;
            }
        }
    }

    fn fence_end(&self, start: usize, fence: &Fence) -> usize {
        (start + 1..self.lines.len())
            .find(|index| fence.is_closed_by(self.line(*index)))
            .unwrap_or(self.lines.len())
    }

    /// A block of code in the language that it names.
    fn block(&mut self, range: Range<usize>, language: &str) {
        match language {
            "" | "bash" | "sh" | "shell" | "zsh" | "console" | "shell-session" | "terminal" | "text"
            | "txt" => {
                let mut region = Region::default();
                let is_session = range.clone().any(|index| self.line(index).trim_start().starts_with("$ "));
                for index in range.clone() {
                    if self.cron_line(index, None) {
                        continue;
                    }
                    let Some(span) = self.lines.get(index).map(|line| line.span.clone()) else { continue };
                    let text = self.line(index);
                    let indent = text.len() - text.trim_start().len();
                    let prompt = text.trim_start().strip_prefix("$ ").map_or(0, |_| 2);
                    if is_session && prompt == 0 && !text.starts_with([' ', '\t', '>']) {
                        // Output of the command before.
                        continue;
                    }
                    region
                        .push(self.text, span.start + if prompt > 0 { indent + prompt } else { 0 }..span.end);
                    region.separate('\n');
                }
                let span = self.span(&range);
                self.add(&region, Origin::Block, span, range.start);
            }
            "cron" | "crontab" => self.cron(range),
            "yaml" | "yml" => self.yaml(range),
            _ => {}
        }
    }

    /// A line of prose that is a command: `RUN: pg_dump …`, `$ pg_dump …`, an indented block. Answers how many lines it takes.
    fn command_line(&mut self, index: usize, last_words: Option<usize>) -> usize {
        let text = self.line(index);
        let Some(base) = self.lines.get(index).map(|line| line.span.start) else { return 0 };
        let trimmed = text.trim_start();
        let indent = text.len() - trimmed.len();
        let start = if let Some(rest) = trimmed.strip_prefix("$ ") {
            text.len() - rest.len()
        } else if let Some(start) = labelled(text) {
            start
        } else if (indent >= 4 || text.starts_with('\t')) && first_is_program(trimmed) {
            if last_words.is_some_and(|line| is_counterexample(self.lower(line))) {
                return 1;
            }
            indent
        } else {
            return 0;
        };
        if self.refuses(index) {
            return 0;
        }
        let mut region = Region::default();
        let mut count = 0;
        let mut end = base;
        for next in index..self.lines.len() {
            let Some(span) = self.lines.get(next).map(|line| line.span.clone()) else { break };
            region.push(self.text, if count == 0 { base + start..span.end } else { span.clone() });
            region.separate('\n');
            (count, end) = (count + 1, span.end);
            if !self.line(next).trim_end().ends_with('\\') {
                break;
            }
        }
        self.add(&region, Origin::Block, base + start..end, index);
        count
    }

    /// Commands between backticks. A sentence that refuses or mentions them does not call them.
    fn inline_code(&mut self, index: usize) {
        let text = self.line(index);
        if !text.contains('`') || self.refuses(index) {
            return;
        }
        let Some(base) = self.lines.get(index).map(|line| line.span.start) else { return };
        let mut at = 0;
        for (part, piece) in text.split('`').enumerate() {
            let start = base + at;
            at += piece.len() + 1;
            // One word is a name, not a call.
            if part % 2 == 1 && piece.trim().contains(' ') && first_is_program(piece.trim_start()) {
                let region = Region::of(self.text, start..start + piece.len());
                self.add(&region, Origin::Inline, start..start + piece.len(), index);
            }
        }
    }

    /// Steps of workflows, commands of containers, schedules.
    fn yaml(&mut self, range: Range<usize>) {
        let zone = range.clone().find_map(|index| {
            let (key, value) = self.line(index).split_once(':')?;
            matches!(key.trim(), "timeZone" | "timezone").then(|| unquoted(value).to_owned())
        });
        let mut index = range.start;
        let mut key = String::new();
        let mut key_indent = 0;
        let mut list: Vec<Range<usize>> = Vec::new();
        while index < range.end {
            let text = self.line(index);
            let trimmed = text.trim_start();
            let indent = text.len() - trimmed.len();
            let Some(base) = self.lines.get(index).map(|line| line.span.start) else { break };
            if trimmed.is_empty() || trimmed.starts_with('#') {
                index += 1;
                continue;
            }
            let dash = trimmed
                .strip_prefix("- ")
                .or_else(|| (trimmed == "-").then_some(""))
                .map_or(0, |rest| trimmed.len() - rest.len());
            let body = trimmed.get(dash..).unwrap_or_default();
            let body_at = base + indent + dash;
            let pair = yaml_pair(body);
            if pair.is_some() || indent < key_indent {
                self.flush(&mut list, &key);
            }
            let (value, value_at) = match pair {
                Some((name, value_start)) => {
                    key = name.to_owned();
                    key_indent = indent + dash;
                    (body.get(value_start..).unwrap_or_default(), body_at + value_start)
                }
                None => (body, body_at),
            };
            if matches!(key.as_str(), "cron" | "schedule")
                && pair.is_some()
                && let Some((fields, _)) =
                    cron_fields(&format!("{} run", unquoted(value.split(" #").next().unwrap_or(value))))
            {
                let span = value_at..value_at + value.trim_end().len();
                self.jobs.push(Job { span, fields, zone: zone.clone(), script: None });
            }
            let is_command = matches!(
                key.as_str(),
                "run"
                    | "script"
                    | "before_script"
                    | "after_script"
                    | "command"
                    | "commands"
                    | "args"
                    | "entrypoint"
                    | "cmd"
                    | "exec"
                    | "shell_command"
                    | "test"
            );
            let style = value.split_whitespace().next().unwrap_or_default();
            let is_block = style.starts_with('|') || style.starts_with('>');
            if is_block {
                let from = index + 1;
                let parent = if pair.is_some() { indent + dash } else { indent };
                let mut to = from;
                while to < range.end {
                    let line = self.line(to);
                    let is_inside = line.trim().is_empty() || line.len() - line.trim_start().len() > parent;
                    if !is_inside {
                        break;
                    }
                    to += 1;
                }
                if is_command {
                    self.shell(from..to, Origin::Step);
                    list.clear();
                }
                index = to;
                continue;
            }
            if is_command && !value.trim().is_empty() {
                let lead = value.len() - value.trim_start().len();
                let stretch = value_at + lead..value_at + value.trim_end().len();
                if value.trim_start().starts_with('[') {
                    list = flow_items(self.text, stretch);
                    self.flush(&mut list, &key);
                } else if pair.is_none()
                    && matches!(key.as_str(), "command" | "args" | "entrypoint" | "cmd" | "exec" | "test")
                {
                    list.push(stretch);
                } else {
                    let inner = inside_quotes(self.text, stretch);
                    let region = Region::of(self.text, inner.clone());
                    self.add(&region, Origin::Step, inner, index);
                }
            }
            index += 1;
        }
        self.flush(&mut list, &key);
    }

    /// An argument vector written as a list.
    fn flush(&mut self, list: &mut Vec<Range<usize>>, key: &str) {
        let items = std::mem::take(list);
        let Some(first) = items.first() else { return };
        let line = self.line_of(first.start);
        let flag = items.iter().position(|item| {
            let text = self.text.get(inside_quotes(self.text, item.clone())).unwrap_or_default();
            matches!(text, "-c" | "-ec" | "-lc" | "-euc" | "-exc" | "-xc")
        });
        let span = first.start..items.last().map_or(first.end, |last| last.end);
        let mut region = Region::default();
        match flag.and_then(|flag| items.get(flag + 1)) {
            Some(script) => region.push(self.text, inside_quotes(self.text, script.clone())),
            None if matches!(key, "script" | "before_script" | "after_script" | "commands") => {
                for item in &items {
                    region.push(self.text, inside_quotes(self.text, item.clone()));
                    region.separate('\n');
                }
            }
            None => {
                for item in &items {
                    region.push(self.text, item.clone());
                    region.separate(' ');
                }
            }
        }
        self.add(&region, Origin::Step, span, line);
    }
}

fn lines(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        lines.push(Line {
            span: at..at + content.len(),
            is_code: false,
            heading: None,
            is_heading: false,
            refuses: OnceCell::new(),
        });
        at += line.len();
    }
    lines
}

struct Fence {
    mark: char,
    length: usize,
    language: String,
}

impl Fence {
    fn open(line: &str) -> Option<Self> {
        let trimmed = line.trim_start_matches([' ', '\t', '>']);
        let mark = trimmed.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
        let length = trimmed.chars().take_while(|other| *other == mark).count();
        let info = trimmed.get(length..)?.trim();
        // A line of inline code may begin with three backticks; then it holds others.
        if length < 3 || (mark == '`' && info.contains('`')) {
            return None;
        }
        let language = info.trim_start_matches('{').split([' ', ',', '}', ':']).next().unwrap_or_default();
        Some(Self { mark, length, language: language.trim_start_matches('.').to_ascii_lowercase() })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let trimmed = line.trim_start_matches([' ', '\t', '>']).trim_end();
        trimmed.chars().count() >= self.length && trimmed.chars().all(|other| other == self.mark)
    }
}

fn is_heading(line: &str) -> bool {
    let hashes = line.chars().take_while(|c| *c == '#').count();
    // A paragraph sign at the end is what a wiki makes of a heading that can be linked to.
    ((1..=6).contains(&hashes) && line.get(hashes..).is_some_and(|rest| rest.starts_with(' ')))
        || line.trim_end().ends_with('¶')
}

/// Whether the words before a block say that it shows what not to do.
fn is_counterexample(lower: &str) -> bool {
    let words = lower.trim_start_matches(['#', '*', '-', '>', ' ', '_', '❌', '✗', ':']);
    ["do not", "don't", "don’t", "never", "wrong", "bad", "avoid", "anti-pattern", "not like this", "broken"]
        .iter()
        .any(|start| words.starts_with(start))
        || lower.contains('❌')
        || lower.contains('✗')
}

/// Where the command begins in `RUN: pg_dump …`.
fn labelled(line: &str) -> Option<usize> {
    const LABELS: [&str; 16] = [
        "RUN", "VERIFY", "RESTORE", "CMD", "COMMAND", "EXEC", "EXECUTE", "BACKUP", "ENCRYPT", "CHECK",
        "TEST", "CLEANUP", "PRUNE", "DECRYPT", "COPY", "STEP",
    ];
    let trimmed = line.trim_start_matches(|c: char| {
        c.is_whitespace() || matches!(c, '-' | '*' | '→' | '•' | '.') || c.is_ascii_digit()
    });
    let (label, rest) = trimmed.split_once(':')?;
    let command = rest.trim_start().trim_start_matches('`');
    (LABELS.contains(&label.trim()) && (first_is_program(command) || command.starts_with("./")))
        .then(|| line.len() - command.len())
}

fn first_is_program(text: &str) -> bool {
    let mut words = text.split_whitespace().skip_while(|word| super::call::is_assignment(word));
    words.next().is_some_and(|word| {
        let name = word.rsplit('/').next().unwrap_or(word);
        is_program(name) || (word.contains('/') && name.ends_with(".sh"))
    })
}

/// Programs that a line of a document is believed to call when it begins with their name.
fn is_program(name: &str) -> bool {
    const PROGRAMS: &[&str] = &[
        "age",
        "aws",
        "az",
        "azcopy",
        "bash",
        "borg",
        "cast",
        "cat",
        "chmod",
        "cp",
        "createdb",
        "crontab",
        "curl",
        "dd",
        "docker",
        "docker-compose",
        "dropdb",
        "duplicity",
        "echo",
        "env",
        "etcdctl",
        "etcdutl",
        "find",
        "flock",
        "forge",
        "gcloud",
        "git",
        "gpg",
        "gsutil",
        "gunzip",
        "gzip",
        "influx",
        "ionice",
        "jq",
        "k3s",
        "kopia",
        "kubectl",
        "ls",
        "mariadb",
        "mariadb-dump",
        "mariabackup",
        "mc",
        "mongodump",
        "mongorestore",
        "mv",
        "mysql",
        "mysqldump",
        "nice",
        "nohup",
        "openssl",
        "pg_basebackup",
        "pg_dump",
        "pg_dumpall",
        "pg_restore",
        "podman",
        "psql",
        "rclone",
        "rdiff-backup",
        "redis-cli",
        "restic",
        "rm",
        "rsync",
        "s3cmd",
        "scp",
        "seaworthy",
        "sftp",
        "sh",
        "sha256sum",
        "sqlite3",
        "ssh",
        "sshpass",
        "su",
        "sudo",
        "systemctl",
        "tar",
        "terraform",
        "timeout",
        "truncate",
        "vault",
        "velero",
        "vzdump",
        "wget",
        "xtrabackup",
        "zcat",
        "zip",
        "zstd",
    ];
    PROGRAMS.contains(&name)
}

/// The five fields of a crontab's line (or what `@daily` stands for) and where its command begins.
fn cron_fields(line: &str) -> Option<([String; 5], usize)> {
    let trimmed = line.trim_start();
    let lead = line.len() - trimmed.len();
    let named = [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
    ];
    for (name, meaning) in named {
        if let Some(rest) = trimmed.strip_prefix(name).filter(|rest| rest.starts_with([' ', '\t'])) {
            let mut fields = meaning.split(' ').map(str::to_owned);
            let fields = std::array::from_fn(|_| fields.next().unwrap_or_default());
            return Some((fields, line.len() - rest.trim_start().len()));
        }
    }
    let mut fields: [String; 5] = Default::default();
    let mut at = lead;
    for (place, field) in fields.iter_mut().enumerate() {
        let rest = line.get(at..)?;
        let rest = rest.trim_start();
        at = line.len() - rest.len();
        let word = rest.split_whitespace().next()?;
        let is_field = word.len() <= 40
            && word.chars().all(|c| {
                c.is_ascii_digit()
                    || matches!(c, '*' | '/' | ',' | '-' | '#' | 'L')
                    || (place >= 3 && c.is_ascii_alphabetic())
            })
            && word.contains(|c: char| {
                c.is_ascii_digit() || c == '*' || (place >= 3 && c.is_ascii_alphabetic())
            });
        if !is_field || (place < 3 && word.starts_with(['-', '#', '/'])) {
            return None;
        }
        word.clone_into(field);
        at += word.len();
    }
    let command = line.get(at..)?.trim_start();
    // A row of numbers is no schedule.
    let has_star = fields.iter().any(|field| field.contains('*'));
    (has_star && !command.is_empty() && !command.starts_with('|'))
        .then(|| (fields, line.len() - command.len()))
}

fn yaml_pair(body: &str) -> Option<(&str, usize)> {
    let colon = body.find(':')?;
    let name = body.get(..colon)?.trim_matches(['"', '\'']);
    let after = body.get(colon + 1..)?;
    let is_name = !name.is_empty()
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'));
    (is_name && (after.is_empty() || after.starts_with(' '))).then_some((name, colon + 1))
}

fn unquoted(value: &str) -> &str {
    value.trim().trim_matches(['"', '\''])
}

/// The stretch without the quotes around it.
fn inside_quotes(text: &str, range: Range<usize>) -> Range<usize> {
    let value = text.get(range.clone()).unwrap_or_default();
    let is_quoted = value.len() >= 2
        && ((value.starts_with('"') && value.ends_with('"'))
            || (value.starts_with('\'') && value.ends_with('\'')));
    if is_quoted { range.start + 1..range.end - 1 } else { range }
}

/// The items of `["a", "b"]`.
fn flow_items(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let value = text.get(range.clone()).unwrap_or_default();
    let mut items = Vec::new();
    let mut start = None;
    let mut quote = None;
    for (at, character) in value.char_indices() {
        match (quote, character) {
            (Some(open), other) if other == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => {
                quote = Some(character);
                start.get_or_insert(at);
            }
            (None, '[' | ']' | ',') => {
                if let Some(begin) = start.take() {
                    items.push(range.start + begin..range.start + at);
                }
            }
            (None, other) if !other.is_whitespace() => {
                start.get_or_insert(at);
            }
            (None, _) => {}
        }
    }
    items
}
