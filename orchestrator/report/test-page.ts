/**
 * A strict reader of the report's HTML: every element is closed in order, every attribute is quoted. What a browser would
 * mend is an error here. Imported by tests only.
 */
export interface ParsedPage {
  /** Ids of sections, in order. */
  ids: string[];
  elements: string[];
  attributes: string[];
}

const VOID = new Set(['meta', 'br']);
const TAG = /<(\/?)([a-z][a-z0-9]*)((?:\s+[a-zA-Z][a-zA-Z0-9-]*(?:="[^"<>]*")?)*)\s*(\/?)>/y;

export function parsedPage(page: string): ParsedPage {
  const found: ParsedPage = { ids: [], elements: [], attributes: [] };
  const open: string[] = [];
  const body = page.replace('<!doctype html>', '').replace(/<style>[^<]*<\/style>/, '');
  for (let at = body.indexOf('<'); at >= 0; at = body.indexOf('<', at + 1)) {
    TAG.lastIndex = at;
    const [, closing, name = '', attributes = '', closed] = TAG.exec(body) ?? [];
    if (name === '') throw new Error(`expected a tag at: ${body.slice(at, at + 80)}`);
    if (closing === '/') {
      const last = open.pop();
      if (last !== name)
        throw new Error(`expected </${last ?? 'nothing'}>, got </${name}> at: ${body.slice(at - 80, at)}`);
      continue;
    }
    found.elements.push(name);
    for (const [, attribute = '', value = ''] of attributes.matchAll(/([a-zA-Z][a-zA-Z0-9-]*)="([^"]*)"/g)) {
      found.attributes.push(attribute);
      if (name === 'section' && attribute === 'id') found.ids.push(value);
    }
    if (closed !== '/' && !VOID.has(name)) open.push(name);
  }
  if (open.length > 0) throw new Error(`expected all elements closed, got ${open.join(', ')} open`);
  return found;
}

const CHARACTERS: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'" };

/** What a reader sees: without tags, entities read. */
export function textOfPage(page: string): string {
  return page.replace(/<[^>]*>/g, '').replace(/&(amp|lt|gt|quot|#39);/g, (_, name: string) => CHARACTERS[name] ?? '');
}
