//! The page around the pictures: one file, nothing fetched, light and dark.

use super::svg::escape;
use std::fmt::Write;

/// A page being written.
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    pub fn new(title: &str, under: &str) -> Self {
        let body = format!("<header><h1>{}</h1><p>{}</p></header>", escape(title), escape(under));
        Self { title: title.to_owned(), body }
    }

    /// Big figures in a row: name, value, a remark.
    pub fn tiles(&mut self, tiles: &[(&str, String, String)]) {
        self.body.push_str("<div class=tiles>");
        for (name, value, remark) in tiles {
            let _ = write!(
                self.body,
                "<div class=tile><span>{}</span><b>{}</b><small>{}</small></div>",
                escape(name),
                escape(value),
                escape(remark)
            );
        }
        self.body.push_str("</div>");
    }

    /// A section; `content` is HTML.
    pub fn section(&mut self, title: &str, about: &str, content: &str) {
        let _ = write!(
            self.body,
            "<section><h2>{}</h2><p class=about>{}</p>{content}</section>",
            escape(title),
            escape(about)
        );
    }

    pub fn finish(self) -> String {
        format!(
            "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport \
             content='width=device-width,initial-scale=1'><title>{}</title><style>{STYLE}</style></head>\
             <body><main>{}</main></body></html>\n",
            escape(&self.title),
            self.body
        )
    }
}

/// Names with their colours.
pub fn legend(names: &[(usize, &str)]) -> String {
    let mut text = String::from("<p class=legend>");
    for (colour, name) in names {
        let _ = write!(text, "<span><i class=c{colour}></i>{}</span>", escape(name));
    }
    text.push_str("</p>");
    text
}

/// The first column is text, the others are figures.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = String::from("<div class=wide><table><thead><tr>");
    for name in head {
        let _ = write!(text, "<th>{}</th>", escape(name));
    }
    text.push_str("</tr></thead><tbody>");
    for row in rows {
        text.push_str("<tr>");
        for cell in row {
            let _ = write!(text, "<td>{}</td>", escape(cell));
        }
        text.push_str("</tr>");
    }
    text.push_str("</tbody></table></div>");
    text
}

pub fn list(items: &[String]) -> String {
    let items: String = items.iter().map(|item| format!("<li>{}</li>", escape(item))).collect();
    format!("<ul>{items}</ul>")
}

const STYLE: &str = "\
:root{color-scheme:light dark;--back:#fff;--panel:#f6f7f9;--ink:#1b1f24;--soft:#5d6671;--rule:#dfe3e8;\
--c0:#3366b8;--c1:#d97a1f;--c2:#2f8f5b;--c3:#b03a48;--c4:#7a5bb5;--c5:#8a8f98;--c6:#c2a300;--c7:#2a96a8}\
@media(prefers-color-scheme:dark){:root{--back:#14171b;--panel:#1c2126;--ink:#e6e9ed;--soft:#9aa4af;--rule:#323941;\
--c0:#6f9be8;--c1:#f0a050;--c2:#5fc28c;--c3:#e0707c;--c4:#a98be0;--c5:#7d858f;--c6:#e0c440;--c7:#56c3d6}}\
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}\
main{max-width:1080px;margin:0 auto;padding:24px 20px 60px}h1{font-size:24px;margin:0 0 4px}\
header p{margin:0 0 20px;color:var(--soft)}h2{font-size:17px;margin:0}section{margin:28px 0 0}\
.about{margin:2px 0 10px;color:var(--soft);font-size:13.5px}.tiles{display:grid;gap:10px;\
grid-template-columns:repeat(auto-fit,minmax(215px,1fr))}.tile{background:var(--panel);border:1px solid var(--rule);\
border-radius:8px;padding:10px 12px;display:flex;flex-direction:column}.tile span{color:var(--soft);font-size:12.5px}\
.tile b{font-size:21px;font-weight:600}.tile small{color:var(--soft)}.pair{display:grid;gap:16px;\
grid-template-columns:repeat(auto-fit,minmax(420px,1fr))}svg{width:100%;height:auto;background:var(--panel);\
border:1px solid var(--rule);border-radius:8px}svg text{fill:var(--soft);font-size:11px}svg .name{font-size:11.5px}\
.grid{stroke:var(--rule)}.axis{stroke:var(--soft)}.line{fill:none;stroke-width:1.8}.area{stroke:none;opacity:.85}.area.c5{opacity:.3}\
.dot{opacity:.6;stroke:none}.bar{stroke:none}\
.line.c0{stroke:var(--c0)}.line.c1{stroke:var(--c1)}.line.c2{stroke:var(--c2)}.line.c3{stroke:var(--c3)}\
.line.c4{stroke:var(--c4)}.line.c5{stroke:var(--c5)}.line.c6{stroke:var(--c6)}.line.c7{stroke:var(--c7)}\
.area.c0,.dot.c0,.bar.c0{fill:var(--c0)}.area.c1,.dot.c1,.bar.c1{fill:var(--c1)}.area.c2,.dot.c2,.bar.c2{fill:var(--c2)}\
.area.c3,.dot.c3,.bar.c3{fill:var(--c3)}.area.c4,.dot.c4,.bar.c4{fill:var(--c4)}.area.c5,.dot.c5,.bar.c5{fill:var(--c5)}\
.area.c6,.dot.c6,.bar.c6{fill:var(--c6)}.area.c7,.dot.c7,.bar.c7{fill:var(--c7)}\
i.c0{background:var(--c0)}i.c1{background:var(--c1)}i.c2{background:var(--c2)}i.c3{background:var(--c3)}\
i.c4{background:var(--c4)}i.c5{background:var(--c5)}i.c6{background:var(--c6)}i.c7{background:var(--c7)}\
.legend{display:flex;flex-wrap:wrap;gap:4px 14px;margin:6px 0;font-size:13px;color:var(--soft)}\
.legend i{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:5px}.wide{overflow-x:auto}\
table{border-collapse:collapse;width:100%;font-size:13.5px}th,td{text-align:right;padding:4px 10px;\
border-bottom:1px solid var(--rule);font-variant-numeric:tabular-nums;white-space:nowrap}\
th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:500}ul{margin:0;padding-left:20px}";
