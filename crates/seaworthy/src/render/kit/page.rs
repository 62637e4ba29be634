//! A kit as one self-contained page: no script, no outside reference, printable.

use std::fmt::Write as _;

use qrcodegen::{QrCode, QrCodeEcc};

use super::{Block, Kit, blocks};
use crate::render::drill::html_text;

const STYLE: &str = "
:root{color-scheme:light}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:#000;background:#fff;max-width:54rem;margin:2rem auto;padding:0 1rem;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:0 0 .5rem}h2{font-size:1.15rem;margin:1.8rem 0 .5rem;border-bottom:2px solid #000}h3{font-size:1rem;margin:1.2rem 0 .3rem}
p{margin:.4rem 0}
.warning{border:3px solid #000;padding:.5rem .8rem;font-weight:700;margin:.8rem 0}
table{border-collapse:collapse;width:100%;margin:.3rem 0}th,td{border-bottom:1px solid #bbb;padding:.15rem .6rem .15rem 0;text-align:left;vertical-align:top}
th{font-weight:600;white-space:nowrap;width:11rem}
pre{background:#f2f2f2;border:1px solid #bbb;padding:.5rem .7rem;margin:.4rem 0;white-space:pre-wrap;font-size:.85em}
.code{display:flex;gap:1rem;align-items:center;margin:.6rem 0}.code svg{width:7.5rem;height:7.5rem;flex:none}
.code code{font-size:.95em}
.blank{margin:1.2rem 0 .8rem;border-bottom:1px solid #000;min-height:2rem}
@media screen and (max-width:40rem){th,td{display:block;width:auto;border:0;padding:0}th{font-size:.85em}tr{display:block;border-bottom:1px solid #bbb;padding:.2rem 0}.code{flex-direction:column;align-items:flex-start}}
@media print{body{font-size:10pt;max-width:none;margin:0;padding:0}h2,h3{break-after:avoid}tr,pre,.code,.warning{break-inside:avoid}}
@page{size:A4;margin:16mm}
";

/// The kit as a page.
pub(crate) fn page(kit: &Kit) -> String {
    let title = format!("Recovery kit of repository {}", kit.repository);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n",
        html_text(&title)
    );
    for block in blocks(kit) {
        let words = match block {
            Block::Heading(level, words) => format!("<h{level}>{}</h{level}>\n", html_text(&words)),
            Block::Text(words) => format!("<p>{}</p>\n", html_text(&words)),
            Block::Warning(words) => format!("<p class=\"warning\">{}</p>\n", html_text(&words)),
            Block::Facts(facts) => {
                let row = |(name, value): &(String, String)| {
                    format!(
                        "<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n",
                        html_text(name),
                        html_text(value)
                    )
                };
                format!("<table>\n{}</table>\n", facts.iter().map(row).collect::<String>())
            }
            Block::Commands(commands) => {
                let lines: Vec<String> = commands.iter().map(|command| html_text(command)).collect();
                format!("<pre>{}</pre>\n", lines.join("\n"))
            }
            Block::Code(name, value) => format!(
                "<div class=\"code\">{}<div>{}:<br><code>{}</code></div></div>\n",
                code(&name, &value),
                html_text(&name),
                html_text(&value)
            ),
            Block::Blank(name) => format!("<p class=\"blank\">{}:</p>\n", html_text(&name)),
        };
        out.push_str(&words);
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

/// A code that a telephone reads; nothing where the text is too long for one, since it stands beside it anyway.
fn code(name: &str, value: &str) -> String {
    // 15 % of it may be worn off: paper is folded.
    let Ok(code) = QrCode::encode_text(value, QrCodeEcc::Medium) else { return String::new() };
    // Four modules of quiet around it, as the standard asks.
    let size = code.size() + 8;
    let mut path = String::new();
    for y in 0..code.size() {
        for x in 0..code.size() {
            if code.get_module(x, y) {
                write!(path, "M{},{}h1v1h-1z", x + 4, y + 4).expect("writing to a String cannot fail");
            }
        }
    }
    format!(
        "<svg viewBox=\"0 0 {size} {size}\" role=\"img\" aria-label=\"code of: {}\" shape-rendering=\"crispEdges\">\
         <rect width=\"{size}\" height=\"{size}\" fill=\"#fff\"/><path d=\"{path}\" fill=\"#000\"/></svg>",
        html_text(name)
    )
}
