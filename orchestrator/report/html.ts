/**
 * Text into HTML: the template tag `html` escapes every value that is not HTML already.
 *
 * 1. Markup comes from template literals of this program only; whatever a run, a log or a catalogue holds is text.
 * 2. There is no way to make HTML of a string but the tag.
 */
export class Html {
  private constructor(readonly text: string) {}

  static join(strings: readonly string[], values: readonly Content[]): Html {
    return new Html(strings.map((string, i) => string + (i < values.length ? textOf(values[i] ?? null) : '')).join(''));
  }
}

export type Content = Html | string | number | null | readonly Content[];

/** Lists are put one behind the other; null is nothing. */
export function html(strings: TemplateStringsArray, ...values: Content[]): Html {
  return Html.join(strings, values);
}

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

function textOf(value: Content): string {
  if (value === null) return '';
  if (value instanceof Html) return value.text;
  if (typeof value === 'string' || typeof value === 'number') {
    return String(value).replace(/[&<>"']/g, (character) => ENTITIES[character] ?? character);
  }
  return value.map(textOf).join('');
}

export interface TableColumn {
  title: string;
  /** Numbers are set to the right. */
  isNumber?: boolean;
}

/** Wider than the page it scrolls by itself. */
export function tableOf(columns: readonly TableColumn[], rows: readonly (readonly Content[])[]): Html {
  const cell = (content: Content, column: number): Html =>
    columns[column]?.isNumber === true ? html`<td class="number">${content}</td>` : html`<td>${content}</td>`;
  const head = columns.map(({ title, isNumber }) =>
    isNumber === true ? html`<th class="number">${title}</th>` : html`<th>${title}</th>`,
  );
  const body = rows.map(
    (row) =>
      html`<tr>
        ${row.map(cell)}
      </tr> `,
  );
  return html`<div class="scroll">
    <table>
      <thead>
        <tr>
          ${head}
        </tr>
      </thead>
      <tbody>
        ${body}
      </tbody>
    </table>
  </div>`;
}
