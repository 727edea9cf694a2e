/** Reads DER, as far as certificates of SPIFFE need it. */
import { SpiffeError } from "./error.js";

/** Elements that follow one another. Every reader throws `SpiffeError` where the bytes are something else. */
export class Der {
  #rest: Buffer;

  constructor(bytes: Uint8Array) {
    this.#rest = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** The next element's tag. */
  get tag(): number | undefined {
    return this.#rest[0];
  }

  get more(): boolean {
    return this.#rest.length > 0;
  }

  /** The whole next element, with its head. */
  element(): Buffer {
    const before = this.#rest;
    this.skip();
    return before.subarray(0, before.length - this.#rest.length);
  }

  /** The content of the next element, which must have this tag. Lengths have their shortest form, so that nothing has two spellings. */
  take(tag: number | undefined): Buffer {
    let size = this.#rest[1] ?? Infinity;
    let head = 2;
    if (size >= 0x80) {
      head += size - 0x80;
      // One byte is an indefinite length, and more than four are longer than any certificate.
      size = head < 3 || head > 6 || this.#rest.length < head ? Infinity : this.#rest.readUIntBE(2, head - 2);
      if (this.#rest[2] === 0 || size < 0x80) size = Infinity;
    }
    if (tag === undefined || this.tag !== tag || head + size > this.#rest.length) {
      throw new SpiffeError("certificate", "the certificate cannot be read");
    }
    const content = this.#rest.subarray(head, head + size);
    this.#rest = this.#rest.subarray(head + size);
    return content;
  }

  /** Nothing may follow. */
  end(): void {
    if (this.more) throw new SpiffeError("certificate", "the certificate cannot be read: something follows where nothing may");
  }

  skip(): void {
    this.take(this.tag);
  }

  inside(tag: number): Der {
    return new Der(this.take(tag));
  }
}

/** The value of the extension with this OID, given as the content bytes of its encoding; `undefined` if the certificate has none. */
export function extensionOf(certificate: Uint8Array, oid: Uint8Array): Buffer | undefined {
  const outside = new Der(certificate);
  const fields = outside.inside(0x30).inside(0x30);
  outside.end();
  while (fields.more && fields.tag !== 0xa3) fields.skip();
  if (!fields.more) return undefined;
  const extensions = fields.inside(0xa3).inside(0x30);
  let found: Buffer | undefined;
  while (extensions.more) {
    const extension = extensions.inside(0x30);
    const wanted = extension.take(0x06).equals(oid);
    if (extension.tag === 0x01) extension.skip();
    const value = extension.take(0x04);
    extension.end();
    // RFC 5280 4.2: an extension occurs once.
    if (wanted && found) throw new SpiffeError("certificate", "the certificate has an extension twice");
    if (wanted) found = value;
  }
  return found;
}

/** Splits elements that follow one another, 1,000 at most. */
export function splitDer(bytes: Uint8Array): Buffer[] {
  const rest = new Der(bytes);
  const found: Buffer[] = [];
  while (rest.more) {
    if (found.length === 1000 || rest.tag !== 0x30) throw new SpiffeError("certificate", "the certificates cannot be read");
    found.push(rest.element());
  }
  return found;
}
