/** MCP servers that name an authorization server: an agent is its client by a JWT-SVID, without a secret or a registration. */

/** Who asks for tokens: an `Identity`. */
export interface OAuthClient {
  /** The client's name at the authorization server. */
  readonly id: string;
  /** Aborted with the reason once the identity has ended. */
  readonly ended: AbortSignal;
  /** A new JWT for the authorization server. */
  assertion(audience: string): Promise<string>;
}

/** How an agent asks. */
export interface OAuthAsked {
  /** URL of the authorization server. Credentials go nowhere else: another one that the MCP server names is refused. */
  issuer: string;
  /** Scopes, with blanks between them; without it those that the server names. */
  scope?: string;
  /** The JWT-SVID is the grant itself (RFC 7523): for authorization servers that take workload identities and know no such client. */
  federated?: boolean;
  /** Gives the grant, the ID-JAG of a company's provider for an authorization server and a resource. The JWT-SVID is the client's proof. */
  idJag?: (issuer: string, resource: string) => Promise<string>;
}

/** What `@modelcontextprotocol/client` saves. */
interface Saved {
  access_token: string;
  token_type: string;
  [more: string]: unknown;
}

const JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/** An `OAuthClientProvider` of `@modelcontextprotocol/client`, which finds the authorization server by what the MCP server says. */
export class OAuthProvider {
  readonly redirectUrl = undefined;
  readonly clientMetadata: { client_name: string; redirect_uris: string[]; grant_types: string[]; token_endpoint_auth_method: string; scope?: string };
  /** Adds the proof of the client; there is none where the JWT-SVID is the grant. */
  readonly addClientAuthentication?: (headers: Headers, form: URLSearchParams) => Promise<void>;
  readonly #client: OAuthClient;
  readonly #asked: OAuthAsked;
  #saved: Saved | undefined;
  #resource = "";

  /** Throws a `TypeError` if both the JWT-SVID and an ID-JAG are to be the grant. */
  constructor(client: OAuthClient, asked: OAuthAsked) {
    if (asked.federated && asked.idJag) throw new TypeError("either the JWT-SVID is the grant (`federated`), or the ID-JAG is");
    [this.#client, this.#asked] = [client, asked];
    const method = asked.federated ? "none" : "private_key_jwt";
    const grant = asked.federated || asked.idJag ? JWT_BEARER : "client_credentials";
    this.clientMetadata = { client_name: client.id, redirect_uris: [], grant_types: [grant], token_endpoint_auth_method: method };
    if (asked.scope !== undefined) this.clientMetadata.scope = asked.scope;
    if (!asked.federated) {
      this.addClientAuthentication = async (_, form) => {
        form.set("client_id", client.id);
        form.set("client_assertion_type", ASSERTION);
        form.set("client_assertion", await client.assertion(asked.issuer));
      };
    }
  }

  clientInformation(): { client_id: string; issuer: string } {
    return { client_id: this.#client.id, issuer: this.#asked.issuer };
  }

  /** Throws the reason once the identity has ended: then nothing is sent. */
  tokens(): Saved | undefined {
    this.#client.ended.throwIfAborted();
    return this.#saved;
  }

  saveTokens(tokens: Saved): void {
    this.#saved = tokens;
  }

  saveResourceUrl(resource: string): void {
    this.#resource = resource;
  }

  async prepareTokenRequest(scope?: string): Promise<URLSearchParams> {
    const form = new URLSearchParams({ grant_type: this.clientMetadata.grant_types[0] ?? "" });
    if (scope) form.set("scope", scope);
    const { issuer, federated, idJag } = this.#asked;
    if (federated) form.set("assertion", await this.#client.assertion(issuer));
    if (idJag) form.set("assertion", await idJag(issuer, this.#resource));
    return form;
  }

  redirectToAuthorization(): void {
    throw new Error("an agent has no browser: the authorization server must take client credentials or assertions");
  }

  saveCodeVerifier(): void {
    // Only for people who sign in.
  }

  codeVerifier(): string {
    throw new Error("an agent signs in nowhere");
  }
}
