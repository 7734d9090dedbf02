// Figures as a file for a spreadsheet.

/** Quotes what needs it; a text that a spreadsheet would take for a formula is made none. @param {string} text */
function cell(text) {
  const harmless = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}

/**
 * @param {string} name
 * @param {(string | number)[][]} rows
 */
export function download(name, rows) {
  const text = rows.map((row) => row.map((value) => cell(String(value))).join(",")).join("\r\n");
  const address = URL.createObjectURL(new Blob([`\ufeff${text}\r\n`], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
