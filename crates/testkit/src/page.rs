//! Pages of figures: a section of a page that a command writes anew, and the machine that the figures are of.

use std::fs;

/// Puts a section, named by marks in comments, in the place of the one before, or at the end.
#[must_use]
pub fn put_section(page: &str, name: &str, section: &str) -> String {
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let section = format!("{begin}\n{section}{end}\n");
    match (page.find(&begin), page.find(&end)) {
        (Some(from), Some(to)) if from < to => {
            let after = page[to + end.len()..].trim_start_matches('\n');
            let gap = if after.is_empty() { "" } else { "\n" };
            format!("{}{section}{gap}{after}", &page[..from])
        }
        _ => format!("{}\n\n{section}", page.trim_end()),
    }
}

/// What tests have told of themselves in lines that hold `figure:`, sorted, as a list.
#[must_use]
pub fn figures(output: &str) -> String {
    let mut figures: Vec<&str> =
        output.lines().filter_map(|line| Some(line.split_once("figure: ")?.1.trim())).collect();
    figures.sort_unstable();
    figures.iter().map(|figure| format!("- {figure}\n")).collect()
}

/// Processor, cores, memory and kernel, in a line.
#[must_use]
pub fn machine() -> String {
    let field = |path: &str, name: &str| {
        fs::read_to_string(path)
            .ok()
            .and_then(|text| {
                text.lines()
                    .find(|line| line.starts_with(name))
                    .and_then(|line| line.split_once(':'))
                    .map(|(_, value)| value.trim().to_owned())
            })
            .unwrap_or_else(|| "unknown".to_owned())
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = field("/proc/meminfo", "MemTotal");
    let gib =
        memory.split(' ').next().and_then(|kib| kib.parse::<f64>().ok()).map_or(0.0, |kib| kib / 1_048_576.0);
    format!(
        "{}, {cores} cores, {gib:.0} GiB memory, Linux {}",
        field("/proc/cpuinfo", "model name"),
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_the_one_before() {
        let first = put_section("# Page\n", "crash", "\none\n");
        assert_eq!(first, "# Page\n\n<!-- crash: begin -->\n\none\n<!-- crash: end -->\n");
        let more = format!("{first}\nlater\n");
        let second = put_section(&more, "crash", "\ntwo\n");
        assert_eq!(second, "# Page\n\n<!-- crash: begin -->\n\ntwo\n<!-- crash: end -->\n\nlater\n");
        assert_eq!(put_section(&second, "crash", "\ntwo\n"), second);
        let both = put_section(&second, "sabotage", "\nthree\n");
        assert!(both.starts_with(&second) && both.contains("three"), "{both}");
    }
}
