/** What a report carries with it: the answers of the server, by route. null on the page that a server gives. */
export interface Report {
  title: string;
  answers: Record<string, unknown>;
}

const holder = document.getElementById("report");

export const report: Report | null = holder ? (JSON.parse(holder.textContent ?? "") as Report) : null;
