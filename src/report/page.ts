/** The frame of the page: head, contents, sections. */
import { type Content, Html, markup } from "./html.ts";
import { STYLE } from "./style.ts";

/** A part of the report. `body` is drawn when the page is; undefined leaves the section out. */
export interface Section {
  readonly id: string;
  readonly title: string;
  readonly body: () => Html | undefined;
}

/** Nothing may be loaded, run, framed or sent, whatever a text in this page manages to say. */
const policy = (images: string) =>
  `default-src 'none'; img-src ${images}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'`;

/** Pictures that lie in files beside the page, on a disk or on a server. */
export const BESIDE = "'self' file:";

/** A section that cannot be drawn says so: a report must not cost a finished run, nor hide that something is missing. */
export const guarded = (body: () => Html | undefined): Html | undefined => {
  try {
    return body();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return markup`<p class="note">This part could not be drawn: ${message}. The values are in the result folder.</p>`;
  }
};

/** The whole document. `images`: where pictures may come from; by default they are in the page. */
export const page = (title: string, head: Content, sections: readonly Section[], images = "data:"): string => {
  const drawn = sections.flatMap(({ id, title, body }) => {
    const content = guarded(body);
    return content === undefined ? [] : [{ id, title, content }];
  });
  const document = markup`
    <!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <meta http-equiv="Content-Security-Policy" content="${policy(images)}">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark">
        <meta name="referrer" content="no-referrer">
        <title>${title}</title>
        <style>${new Html(STYLE)}</style>
      </head>
      <body>
    ${head}
    <nav aria-label="Contents"><ul>${
    drawn.map(({ id, title }) => markup`<li><a href="#${id}">${title}</a></li>`)
  }</ul></nav>
    <main>
    ${
    drawn.map(({ id, title, content }) =>
      markup`
        <section id="${id}" aria-labelledby="${id}-title">
          <h2 id="${id}-title">${title}</h2>
          <div class="body">${content}</div>
        </section>
      `
    )
  }</main>
      </body>
    </html>
  `;
  return document.source.trimStart();
};
